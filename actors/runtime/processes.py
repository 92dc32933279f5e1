"""The processes of a cluster on NATS: each one describes itself, and hands out its metrics.

A request to `process.describe` is answered by every process, one to `process.<id>.describe` by one. Its
metrics are at `process.<id>.metrics`, in Prometheus' text format, so that a gateway can serve those of
processes that Prometheus does not reach.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from pydantic import ValidationError

from actors.bus.bus import Bus, Message
from actors.bus.subjects import PROCESSES_SUBJECT, ProcessAddress
from actors.telemetry.exposition import exposition
from actors.telemetry.identity import ProcessIdentity
from orchestration.errors import OrchestraError
from orchestration.wire import Wire

log = logging.getLogger(__name__)

ENCODING = "Content-Encoding"
QUIET_S = 0.2
"""A list of processes is complete when no further one has answered for this time."""
ROLES = {"up": ("node", "dispatcher", "agents", "gateway")}


class ProcessInfo(Wire):
    """A process as it describes itself."""

    id: str
    """Unique in the cluster: role, host and four random hexadecimal digits."""
    role: str
    """`up`, `gateway`, `dispatcher`, `agents`, `node` or `logs`."""
    roles: tuple[str, ...] = ()
    """The roles in it; `orchestra up` has several."""
    host: str = ""
    pid: int = 0
    version: str = ""
    started_at: float = 0.0
    """Unix time in seconds."""
    nodes: tuple[str, ...] = ()
    """Ids of the nodes in it."""
    metrics_url: str = ""
    """Where it serves its metrics over HTTP; empty: nowhere."""


class ProcessService:
    """Answers for this process. `metrics_url` is that of its own metrics server, if it has one."""

    def __init__(self, bus: Bus, identity: ProcessIdentity, metrics_url: str = "") -> None:
        self.bus = bus
        self.identity = identity
        self.metrics_url = metrics_url

    def describe(self) -> ProcessInfo:
        """This process, as it is now."""
        identity = self.identity
        gateway = f"{self.bus.http_url}/metrics" if self.bus.http_url else ""
        return ProcessInfo(
            id=identity.id,
            role=identity.role,
            roles=ROLES.get(identity.role, (identity.role,)),
            host=identity.host,
            pid=identity.pid,
            version=identity.version,
            started_at=identity.started_at,
            nodes=tuple(sorted(self.bus.local_nodes)),
            metrics_url=self.metrics_url or gateway,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer until the block ends."""
        address = ProcessAddress(self.identity.id)
        subscriptions = [
            await self.bus.subscribe(PROCESSES_SUBJECT, self._describe),
            await self.bus.subscribe(address.describe, self._describe),
            await self.bus.subscribe(address.metrics, self._metrics),
        ]
        await self.bus.flush()
        try:
            yield
        finally:
            for subscription in subscriptions:
                await subscription.unsubscribe()
            with suppress(OrchestraError):  # else it counts as silent for a while
                self.bus.post(address.left, self.identity.id.encode())

    def _describe(self, message: Message) -> None:
        self.bus.answer(message, self.describe().model_dump_json().encode())

    async def _metrics(self, message: Message) -> None:
        if not message.reply:
            return
        text, headers = await exposition(), {}
        if len(text) > self.bus.max_payload // 2:
            text, headers = await asyncio.to_thread(gzip.compress, text, 1), {ENCODING: "gzip"}
        self.bus.answer(message, text, headers=headers)


async def list_processes(bus: Bus, *, quiet_s: float = QUIET_S) -> list[ProcessInfo]:
    """All processes that answer, by id; complete once none has answered for `quiet_s`. Raises
    `BusUnavailable`."""
    found: dict[str, ProcessInfo] = {}
    news = asyncio.Event()

    def answered(message: Message) -> None:
        try:
            info = ProcessInfo.model_validate_json(message.data)
        except ValidationError:  # also NATS' reply that nobody listens
            return
        found[info.id] = info
        news.set()

    reply = bus.expect(answered)
    try:
        await bus.publish(PROCESSES_SUBJECT, reply=reply)
        while True:
            news.clear()
            async with asyncio.timeout(quiet_s):
                await news.wait()
    except TimeoutError:
        return [found[key] for key in sorted(found)]
    finally:
        bus.forget(reply)


async def metrics_of(bus: Bus, process: str) -> bytes:
    """The metrics of one process as text. Raises `NoResponders` if there is no such process,
    `DeadlineExceeded` and `BusUnavailable`."""
    answer = await bus.request(ProcessAddress(process).metrics)
    if answer.header(ENCODING) == "gzip":
        return await asyncio.to_thread(gzip.decompress, answer.data)
    return answer.data
