"""A full disk under JetStream, told by the process that keeps the server to those that put work on queues.

JetStream itself says nothing: what it cannot store it leaves without an answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from actors.bus.bus import Bus, Message, Subscription
from orchestration.errors import (
    BusUnavailable,
    DeadlineExceeded,
    NoNode,
    OrchestraError,
    StorageFull,
)

log = logging.getLogger(__name__)

SUBJECT = "storage.full"
TELL_S = 0.5
FORGET_S = 2.0
"""How long what was told holds: it is told again while it is so."""
QUEUE = "GENERATIONS"
_SYMPTOMS = (BusUnavailable, DeadlineExceeded, NoNode)


class StorageMonitor:
    """Listens between `start` and `stop`."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._said = ""
        self._said_at = 0.0
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(SUBJECT, self._heard)

    async def stop(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    @property
    def problem(self) -> str:
        """Which disk is full, or ''."""
        return self._said if time.monotonic() - self._said_at < FORGET_S else ""

    def check(self) -> None:
        """Raise `StorageFull` where nothing can be stored: waiting for a queue would be in vain."""
        if self.problem:
            raise self._error()

    def explain_error(self, error: OrchestraError) -> OrchestraError:
        """`StorageFull` in the place of what follows from it, else `error` itself."""
        return self._error() if self.problem and isinstance(error, _SYMPTOMS) else error

    @contextmanager
    def explain_errors(self) -> Iterator[None]:
        """Apply `explain_error` to what the block raises."""
        try:
            yield
        except OrchestraError as error:
            explained = self.explain_error(error)
            if explained is error:
                raise
            raise explained from error

    def _error(self) -> StorageFull:
        return StorageFull(f"no work can be stored: {self.problem}", retry_after_s=5)

    def _heard(self, message: Message) -> None:
        self._said, self._said_at = message.data.decode(errors="replace")[:500], time.monotonic()


@asynccontextmanager
async def report_full_disk(bus: Bus, problem: Callable[[], str]) -> AsyncIterator[None]:
    """Tell while the block runs what `problem` says of this process's disk, '' for nothing."""
    task = asyncio.get_running_loop().create_task(_tell(bus, problem), name="storage")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _tell(bus: Bus, problem: Callable[[], str]) -> None:
    while True:
        said = problem()
        if said:
            try:
                if not await _replicated(bus):
                    bus.post(SUBJECT, said.encode())
            except OrchestraError as error:
                log.debug("nobody can be told that a disk is full: %s", error)
        await asyncio.sleep(TELL_S)


async def _replicated(bus: Bus) -> bool:
    """Whether other servers store work too, for which one full disk is no end."""
    reply = await bus.request(f"$JS.API.STREAM.INFO.{QUEUE}", b"", timeout=2)
    config = json.loads(reply.data).get("config", {})
    return int(config.get("num_replicas", 1)) > 1
