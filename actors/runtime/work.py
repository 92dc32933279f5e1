"""One message on its way through an actor, and whoever waits for the answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.runtime.envelope import Envelope
from orchestration.errors import OrchestraError


class Sink(Protocol):
    """Where the answer goes. Exactly one of `done` and `failed` is called, once."""

    async def item(self, value: Any) -> None:
        """One value of a stream; may wait, which slows the handler down (back-pressure)."""

    async def done(self, value: Any) -> None:
        """The result, or None at the end of a stream."""

    async def failed(self, error: OrchestraError) -> None: ...


class Nowhere:
    """The sink of a `tell`: nobody waits."""

    async def item(self, value: Any) -> None: ...

    async def done(self, value: Any) -> None: ...

    async def failed(self, error: OrchestraError) -> None: ...


NOWHERE = Nowhere()


@dataclass(slots=True, eq=False)
class Work:
    """A message, its envelope, and its sink. `cancel` takes it back, whether it waits or runs."""

    message: Any
    envelope: Envelope
    sink: Sink
    task: asyncio.Task[None] | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()


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

    `abandoned` is set by a reader that leaves: nobody empties the queue any more, so nothing is put in.
    """

    queue: asyncio.Queue[Any] = field(default_factory=lambda: asyncio.Queue(64))
    abandoned: bool = False

    async def item(self, value: Any) -> None:
        await self._put(value)

    async def done(self, value: Any) -> None:
        await self._put(_End(None))

    async def failed(self, error: OrchestraError) -> None:
        await self._put(_End(error))

    async def _put(self, value: Any) -> None:
        if not self.abandoned:
            await self.queue.put(value)

    async def next(self) -> tuple[bool, Any]:
        """(True, value), or (False, None) at the end; raises the error that ended it."""
        value = await self.queue.get()
        if not isinstance(value, _End):
            return True, value
        if value.error is not None:
            raise value.error
        return False, None
