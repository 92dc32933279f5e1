"""The NATS servers of a cluster, for `orchestra status`: their streams and their state."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from actors.bus.bus import Bus
from actors.bus.provision import call_api


@dataclass(slots=True)
class ServerRow:
    """One server that stores streams. `lagging` is the number of streams whose newest messages it lacks."""

    name: str
    leads: list[str] = field(default_factory=list)
    follows: list[str] = field(default_factory=list)
    lagging: int = 0
    offline: bool = False

    def __str__(self) -> str:
        state = "offline" if self.offline else f"{self.lagging} behind" if self.lagging else "up to date"
        return f"server {self.name}: leads {len(self.leads)} streams, follows {len(self.follows)}, {state}"


@dataclass(slots=True)
class ServerRows:
    """`replicas` is the smallest number of any stream: with 3, any one of the servers may die."""

    servers: list[ServerRow]
    replicas: int
    urls: list[str]
    """URLs of all servers that clients know, also of those without streams."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        if not self.servers:
            return ["one NATS server: each stream is stored once"]
        safe = "any one server may die" if self.replicas >= 3 else "the loss of a server loses its streams"
        return [*map(str, self.servers), f"replicas: {self.replicas} ({safe})"]


async def servers_of(bus: Bus) -> ServerRows:
    """Raises `BusUnavailable`, or `DeadlineExceeded` for a cluster without a majority."""
    rows: dict[str, ServerRow] = {}
    fewest, offset, total = 0, 0, 1
    while offset < total:
        page = await call_api(bus, "STREAM.LIST", {"offset": offset})
        streams, total = page.get("streams") or [], page.get("total", 0)
        if not streams:
            break
        offset += len(streams)
        for info in streams:
            _note(rows, info["config"]["name"], info.get("cluster") or {})
            count = info["config"]["num_replicas"]
            fewest = min(fewest or count, count)
    urls = set(bus.nats.servers)
    return ServerRows(sorted(rows.values(), key=lambda each: each.name), fewest, sorted(urls))


def _note(rows: dict[str, ServerRow], stream: str, cluster: dict[str, Any]) -> None:
    if leader := cluster.get("leader"):
        rows.setdefault(leader, ServerRow(leader)).leads.append(stream)
    for replica in cluster.get("replicas") or []:
        server = rows.setdefault(replica["name"], ServerRow(replica["name"]))
        server.follows.append(stream)
        server.lagging += not replica.get("current", False)
        server.offline |= replica.get("offline", False)
