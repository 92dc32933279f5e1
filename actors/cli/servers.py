"""The nats-servers behind a cluster, for `orchestra status`: who keeps what, and who is away."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from actors.bus.bus import Bus
from actors.bus.provision import call_api


@dataclass(slots=True)
class ServerRow:
    """One server that keeps streams. `behind` counts those of which it lacks the newest messages."""

    name: str
    leads: list[str] = field(default_factory=list)
    follows: list[str] = field(default_factory=list)
    behind: int = 0
    offline: bool = False

    def __str__(self) -> str:
        state = "away" if self.offline else f"{self.behind} behind" if self.behind else "up to date"
        return f"server {self.name}: leads {len(self.leads)} streams, follows {len(self.follows)}, {state}"


@dataclass(slots=True)
class ServerRows:
    """`replicas` is the fewest of any stream: with 3, any one of the servers may die."""

    servers: list[ServerRow]
    replicas: int
    urls: list[str]
    """Every server that clients know of, plain peers included."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        if not self.servers:
            return ["one nats-server, alone: what it keeps is kept once"]
        safe = "any one server may die" if self.replicas >= 3 else "what a server keeps goes with it"
        return [*map(str, self.servers), f"replicas: {self.replicas} ({safe})"]


async def servers_of(bus: Bus) -> ServerRows:
    """Raises `BusUnavailable`, or `DeadlineExceeded` for a cluster without a majority."""
    found: dict[str, ServerRow] = {}
    fewest, offset, total = 0, 0, 1
    while offset < total:
        page = await call_api(bus, "STREAM.LIST", {"offset": offset})
        streams, total = page.get("streams") or [], page.get("total", 0)
        if not streams:
            break
        offset += len(streams)
        for info in streams:
            _note(found, info["config"]["name"], info.get("cluster") or {})
            count = info["config"]["num_replicas"]
            fewest = min(fewest or count, count)
    known = set(bus.nats.servers)
    return ServerRows(sorted(found.values(), key=lambda each: each.name), fewest, sorted(known))


def _note(found: dict[str, ServerRow], stream: str, cluster: dict[str, Any]) -> None:
    if leader := cluster.get("leader"):
        found.setdefault(leader, ServerRow(leader)).leads.append(stream)
    for replica in cluster.get("replicas") or []:
        server = found.setdefault(replica["name"], ServerRow(replica["name"]))
        server.follows.append(stream)
        server.behind += not replica.get("current", False)
        server.offline |= replica.get("offline", False)
