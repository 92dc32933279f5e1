"""Takes work off its queue that nobody wants any more, so that it fills no queue while all nodes are busy."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque

from actors.bus.bus import Bus
from orchestration.errors import OrchestraError

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""The oldest are left to whoever pulls them: a dispatcher or a coordinator hears of each cancel too."""
TOGETHER = 64
"""JetStream's API has one queue of 10,000 requests for all, and drops the whole queue when it is full."""


class MessageDeleter:
    """Deletes messages, `TOGETHER` at a time. Whoever has pulled one already acknowledges it as ever."""

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
        """Go on, after NATS was away."""
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._delete_all())

    async def stop(self) -> None:
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _delete_all(self) -> None:
        """The answer to the last of each `TOGETHER` stands for them all."""
        while self._waiting and self.bus.connected:
            try:
                for _ in range(min(TOGETHER, len(self._waiting)) - 1):
                    self.bus.post(*_request(*self._waiting.popleft()))
                await self.bus.request(*_request(*self._waiting.popleft()))
            except OrchestraError as error:
                log.debug("what nobody wants any more stays in its queue: %s", error)


def _request(stream: str, sequence: int) -> tuple[str, bytes]:
    return f"$JS.API.STREAM.MSG.DELETE.{stream}", b'{"seq":%d,"no_erase":true}' % sequence
