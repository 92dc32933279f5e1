"""A full disk under JetStream: the process that runs the server reports it to those that enqueue work.

JetStream itself does not report it: it leaves a message that it cannot store without an answer.
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
REPORT_INTERVAL_S = 0.5
VALID_S = 2.0
"""How long a report is valid; it is repeated every `REPORT_INTERVAL_S` while the disk is full."""
QUEUE = "GENERATIONS"
_SYMPTOMS = (BusUnavailable, DeadlineExceeded, NoNode)


class StorageMonitor:
    """Receives the reports of a full disk between `start` and `stop`."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._report = ""
        self._reported_at = 0.0
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(SUBJECT, self._reported)

    async def stop(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    @property
    def problem(self) -> str:
        """Which disk is full, or ''."""
        return self._report if time.monotonic() - self._reported_at < VALID_S else ""

    def check(self) -> None:
        """Raise `StorageFull` while nothing can be stored, instead of waiting for a queue."""
        if self.problem:
            raise self._error()

    def explain_error(self, error: OrchestraError) -> OrchestraError:
        """`StorageFull` when a full disk is the cause of `error`, else `error` itself."""
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

    def _reported(self, message: Message) -> None:
        self._report, self._reported_at = message.data.decode(errors="replace")[:500], time.monotonic()


@asynccontextmanager
async def report_full_disk(bus: Bus, problem: Callable[[], str]) -> AsyncIterator[None]:
    """Report `problem()` to all processes while the block runs; '' means that there is none."""
    task = asyncio.get_running_loop().create_task(_report_repeatedly(bus, problem), name="storage")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _report_repeatedly(bus: Bus, problem: Callable[[], str]) -> None:
    while True:
        report = problem()
        if report:
            try:
                if not await _replicated(bus):
                    bus.post(SUBJECT, report.encode())
            except OrchestraError as error:
                log.debug("cannot report a full disk: %s", error)
        await asyncio.sleep(REPORT_INTERVAL_S)


async def _replicated(bus: Bus) -> bool:
    """Whether other servers store work too, so that one full disk does not stop it."""
    reply = await bus.request(f"$JS.API.STREAM.INFO.{QUEUE}", b"", timeout=2)
    config = json.loads(reply.data).get("config", {})
    return int(config.get("num_replicas", 1)) > 1
