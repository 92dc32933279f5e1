"""Runs one generation for equal requests that are in progress at the same time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import dataclass, field

from actors.gateway.metrics import COALESCED
from actors.telemetry.tracing import Scope, current_scope
from orchestration.errors import DeadlineExceeded, InternalError, OrchestraError, ShuttingDown, from_body
from orchestration.messages import RunEnd, StreamEnd, StreamEvent, TextDelta, Vectors
from orchestration.response_cache import BroadcastBuffer, Follower

log = logging.getLogger(__name__)

_EVENT_BYTES = 1000
"""Memory of one event without its text: a pydantic object and its fields (measured on CPython 3.11)."""
_LOGPROB_BYTES = 700
"""Memory of one token's log probability, and of each alternative."""

Source = AsyncGenerator[StreamEvent, None]


@dataclass(slots=True, eq=False)
class SharedStream:
    """One generation in progress, which several requests may follow."""

    key: str
    """Fingerprint of the request."""
    buffer: BroadcastBuffer[StreamEvent]
    """The events so far, for all followers."""
    cached: bool = False
    """Whether its events came from the shared bucket."""
    task: asyncio.Task[None] | None = None
    """Reads the generation; None before it starts."""
    scope: Scope = field(default_factory=Scope)
    """When the last follower has left, for the generation's spans: it stops a moment later."""


class RequestCoalescer:
    """Runs at most one generation per key. A task reads it until the last follower has left."""

    def __init__(self, *, max_stream_bytes: int, max_total_bytes: int) -> None:
        self.max_stream_bytes = max_stream_bytes
        self.max_total_bytes = max_total_bytes
        self.size = 0
        """Bytes buffered of all streams."""
        self._open: dict[str, SharedStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def find(self, key: str) -> SharedStream | None:
        """Return the stream of that key that can still be joined, if any."""
        shared = self._open.get(key)
        return shared if shared is not None and shared.buffer.open else None

    def begin(
        self, key: str, source: Callable[[SharedStream], Source], finished: Callable[[], None]
    ) -> SharedStream:
        """Start a stream of the events that `source` yields. Follow it at once.

        `finished` is called in any case; a source that is cancelled before it starts never runs.
        """
        shared = SharedStream(key, BroadcastBuffer(self.max_stream_bytes))
        context = copy_context()
        context.run(current_scope.set, shared.scope)
        reading = self._read(shared, source(shared))
        task = asyncio.get_running_loop().create_task(reading, context=context)
        shared.task = task
        self._open[key] = shared
        self._tasks.add(task)
        COALESCED.set(len(self._tasks))
        task.add_done_callback(lambda task: self._done(shared, task))
        task.add_done_callback(lambda task: finished())
        return shared

    async def follow(self, shared: SharedStream, remaining_s: float) -> AsyncGenerator[StreamEvent, None]:
        """Yield all events of the stream, from its first one. Close it at the end: when the last follower has
        left, the generation is cancelled.

        Raises what the generation ended with, `DeadlineExceeded` after `remaining_s` seconds, `TooSlow`.
        """
        news = asyncio.Event()
        late: list[bool] = []

        def time_up() -> None:
            late.append(True)
            news.set()

        follower = shared.buffer.join(news.set)
        timer = asyncio.get_running_loop().call_later(remaining_s, time_up)
        try:
            while True:
                news.clear()
                for event in follower.take():
                    yield event
                if follower.done:
                    break
                if late:
                    raise DeadlineExceeded(f"no complete response within {remaining_s:.1f} s")
                await news.wait()
            if shared.buffer.error is not None:
                raise from_body(shared.buffer.error.body())
        finally:
            timer.cancel()
            self._leave(shared, follower)

    async def stop(self) -> None:
        """Cancel all streams; their followers get `ShuttingDown`."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _leave(self, shared: SharedStream, follower: Follower[StreamEvent]) -> None:
        buffer = shared.buffer
        before = buffer.size
        if buffer.leave(follower):
            buffer.close()
            self._forget(shared)
            if shared.task is not None and not buffer.ended:
                shared.scope.close()
                shared.task.cancel()
        self.size += buffer.size - before

    def _forget(self, shared: SharedStream) -> None:
        if self._open.get(shared.key) is shared:
            del self._open[shared.key]

    async def _read(self, shared: SharedStream, source: Source) -> None:
        buffer, unread = shared.buffer, 0
        try:
            async with aclosing(source) as events:
                async for event in events:
                    size = event_bytes(event)
                    self._put(buffer, event, size)
                    unread += size
                    if unread > self.max_stream_bytes // 4:
                        unread = 0
                        await asyncio.sleep(0)  # let the followers read before unread events are dropped
            buffer.end()
        except OrchestraError as error:
            buffer.end(error)

    def _put(self, buffer: BroadcastBuffer[StreamEvent], event: StreamEvent, size: int) -> None:
        before = buffer.size
        buffer.put(event, size)
        self.size += buffer.size - before
        if self.size > self.max_total_bytes and buffer.open:
            before = buffer.size
            buffer.close()
            self.size += buffer.size - before

    def _done(self, shared: SharedStream, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        COALESCED.set(len(self._tasks))
        self._forget(shared)
        if shared.buffer.ended:
            return
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a shared generation failed", exc_info=error)
            shared.buffer.end(InternalError("the gateway failed on this request; see its log"))
        else:
            shared.buffer.end(ShuttingDown("the gateway shut down before the response was complete"))


def event_bytes(event: StreamEvent) -> int:
    """The approximate memory of an event."""
    if isinstance(event, TextDelta):
        tokens = event.logprobs or ()
        entries = sum(1 + len(token.top_logprobs) for token in tokens)
        return _EVENT_BYTES + len(event.text) + len(event.reasoning) + _LOGPROB_BYTES * entries
    if isinstance(event, Vectors):
        return _EVENT_BYTES + sum(map(len, event.vectors))
    if isinstance(event, StreamEnd):
        calls = sum(_EVENT_BYTES + len(call.arguments) for call in event.finish.calls)
        steps = event.steps if isinstance(event, RunEnd) else ()
        return _EVENT_BYTES + calls + sum(_EVENT_BYTES + len(step.text) for step in steps)
    return _EVENT_BYTES
