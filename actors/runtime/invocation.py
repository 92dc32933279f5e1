"""One message on its way through an actor, and whoever waits for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.runtime.envelope import Envelope
from orchestration.errors import OrchestraError

STREAM_BUFFER = 64
"""Values of a stream that may wait for their reader before the handler has to."""


class ResultSink(Protocol):
    """Where the answer goes. Exactly one of `done` and `failed` is called, once."""

    async def item(self, value: Any) -> None:
        """One value of a stream; may wait, which slows the handler down (back-pressure)."""

    async def done(self, value: Any) -> None:
        """The result, or None at the end of a stream."""

    async def failed(self, error: OrchestraError) -> None: ...


class NullSink:
    """The sink of a `tell`: nobody waits."""

    async def item(self, value: Any) -> None: ...

    async def done(self, value: Any) -> None: ...

    async def failed(self, error: OrchestraError) -> None: ...


NULL_SINK = NullSink()


@dataclass(slots=True, eq=False)
class Invocation:
    """A message, its envelope, and its sink. `cancel` takes it back, whether it waits or runs."""

    message: Any
    envelope: Envelope
    sink: ResultSink
    task: asyncio.Task[None] | None = None
    cancelled: bool = False
    on_cancel: Callable[[Invocation], None] | None = None
    """Set while the work waits in a mailbox."""
    timer: asyncio.TimerHandle | None = None
    """Ends the wait in the mailbox at the deadline."""

    def cancel(self) -> None:
        if self.cancelled:
            return
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()
        elif self.on_cancel is not None:
            self.on_cancel(self)

    def leave_mailbox(self) -> None:
        """It waits no more."""
        self.on_cancel = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(slots=True, eq=False)
class AnswerSink:
    """The sink of an `ask`."""

    answer: asyncio.Future[Any]

    async def item(self, value: Any) -> None:
        raise TypeError("this handler streams: use `stream`, not `ask`")

    async def done(self, value: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(value)

    async def failed(self, error: OrchestraError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(frozen=True, slots=True)
class _End:
    error: OrchestraError | None


@dataclass(slots=True, eq=False)
class StreamSink:
    """The sink of a `stream`: a bounded queue between the handler and its reader.

    Only values wait for room: the end always fits, so a handler that is told to stop can always say so.
    `abandon` is for a reader that leaves: nobody empties the queue any more, so nothing is put in.
    """

    queue: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STREAM_BUFFER))
    abandoned: bool = False

    async def item(self, value: Any) -> None:
        await self.room.acquire()
        if not self.abandoned:
            self.queue.put_nowait(value)

    async def done(self, value: Any) -> None:
        self.queue.put_nowait(_End(None))

    async def failed(self, error: OrchestraError) -> None:
        self.queue.put_nowait(_End(error))

    def abandon(self) -> None:
        self.abandoned = True

    async def next(self) -> tuple[bool, Any]:
        """(True, value), or (False, None) at the end; raises the error that ended it."""
        value = await self.queue.get()
        if not isinstance(value, _End):
            self.room.release()
            return True, value
        if value.error is not None:
            raise value.error
        return False, None
