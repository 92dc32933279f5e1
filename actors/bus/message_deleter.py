"""Deletes cancelled work from its queue: otherwise it fills the queue while all nodes are busy."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque

from actors.bus.bus import Bus
from orchestration.errors import OrchestraError

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Maximum number of messages to delete. The oldest beyond it stay: the dispatcher or coordinator that pulls
one has received its cancel too."""
BATCH = 64
"""Requests sent before one answer is awaited: JetStream's API has one queue of 10,000 requests for all
clients, and drops the whole queue when it is full."""


class MessageDeleter:
    """Deletes messages, `BATCH` at a time. A message that was pulled already is acknowledged as usual."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._waiting: deque[tuple[str, int]] = deque(maxlen=MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, receipt: bytes) -> None:
        """Delete the message whose publish acknowledgement `receipt` is."""
        stored = json.loads(receipt)
        self._waiting.append((stored["stream"], stored["seq"]))
        self.resume()

    def resume(self) -> None:
        """Continue after a reconnect."""
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._delete_all())

    async def stop(self) -> None:
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _delete_all(self) -> None:
        """Wait for the answer to the last request of each batch only."""
        while self._waiting and self.bus.connected:
            try:
                for _ in range(min(BATCH, len(self._waiting)) - 1):
                    self.bus.post(*_request(*self._waiting.popleft()))
                await self.bus.request(*_request(*self._waiting.popleft()))
            except OrchestraError as error:
                log.debug("cancelled work stays in its queue: %s", error)


def _request(stream: str, sequence: int) -> tuple[str, bytes]:
    return f"$JS.API.STREAM.MSG.DELETE.{stream}", b'{"seq":%d,"no_erase":true}' % sequence
