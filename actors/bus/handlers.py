"""Handlers of messages: plain or coroutine functions, whose exceptions never end the reading loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from actors.bus.message import Message

log = logging.getLogger(__name__)

Handler = Callable[[Message], Awaitable[None] | None]
Callback = Callable[[Message], None]


class Subscription(Protocol):
    """Ends the flow of messages to a handler: at once, or after everything sent so far is handled."""

    async def unsubscribe(self) -> None: ...

    async def drain(self) -> None: ...


class Handlers:
    """The handlers of the connection `name`, and the tasks that they started."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: set[asyncio.Future[None]] = set()

    def direct(self, handler: Handler) -> Callback:
        """Wrap `handler` in a function that logs its exceptions and raises nothing."""

        def deliver(message: Message) -> None:
            try:
                done = handler(message)
            except Exception as error:  # it would end the loop that reads from NATS
                log.error("a handler of %s failed on %s", self.name, message.subject, exc_info=error)
                return
            if done is not None:
                task = asyncio.ensure_future(done)
                self._tasks.add(task)
                task.add_done_callback(self._done)

        return deliver

    def __len__(self) -> int:
        return len(self._tasks)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a handler of %s failed", self.name, exc_info=error)
