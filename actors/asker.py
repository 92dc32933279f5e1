"""Whoever wants an answer: puts generations and runs on their queues and holds their streams.

An asker listens to `stream.<asker>.*` once; the id of what it asks for holds its name, so every answer
finds its way back without a subscription per request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from secrets import token_hex

from pydantic import ValidationError

from actors.runtime.bus import Bus, Message, Subscription
from actors.runtime.envelope import Envelope
from actors.runtime.jetstream import stored
from actors.runtime.streams import WRITER
from actors.runtime.subjects import GenerationQueue, RunQueue, StreamAddress
from orchestration.errors import (
    BusUnavailable,
    DeadlineExceeded,
    Defect,
    NodeLost,
    OrchestraError,
    Unavailable,
    from_body,
)
from orchestration.messages import EVENT, Chunk, Ended, Generation, Progress, Run, Vectors

log = logging.getLogger(__name__)

ID_HEADER = "Orchestra-Id"
DEFAULT_DEADLINE_S = 600.0
OUT_OF_BAND = -1
"""The `seq` of an end that does not come from who wrote the stream, but from who watched over it."""

MAX_BUFFERED = 16_384
"""Events that may wait for a slow reader of one stream: more than a model's longest answer."""
SILENCE_S = 10.0
"""A first writer silent for so long after a second one began is taken for dead: a lease and its sweep."""
MAX_ORPHANS = 10_000
"""Cancels that could not be sent while NATS was away; the oldest are forgotten first."""
STREAM_PREFIX = "stream."

Event = Chunk | Vectors | Progress | Ended


@dataclass(slots=True, eq=False)
class _Open:
    """One stream being read. `arrived` holds its messages, or the error that ends it.

    Work that was delivered twice has two writers, which cut their text into different chunks: only the
    first one is read.
    """

    arrived: asyncio.Queue[Message | OrchestraError] = field(default_factory=asyncio.Queue)
    writer: str | None = None
    heard_at: float = 0.0
    refused: bool = False
    """By the queue: there is nothing to cancel."""
    overflowed: bool = False
    silence: asyncio.TimerHandle | None = None

    def put(self, message: Message) -> None:
        if self.arrived.qsize() < MAX_BUFFERED:
            self.arrived.put_nowait(message)
        elif not self.overflowed:
            self.overflowed = True
            self.fail(Unavailable(f"{MAX_BUFFERED} events wait to be read: the reader is too slow"))

    def fail(self, error: OrchestraError) -> None:
        self.arrived.put_nowait(error)

    def is_from_rival(self, message: Message) -> bool:
        """Whether another than the first writer sent it; when the first has fallen silent, fail."""
        writer = message.header(WRITER)
        loop = asyncio.get_running_loop()
        if self.writer is None or self.writer == writer:
            self.writer, self.heard_at = writer, loop.time()
            return False
        if self.silence is None:
            self.silence = loop.call_later(SILENCE_S, self._check_silence)
        return True

    def _check_silence(self) -> None:
        loop = asyncio.get_running_loop()
        left = self.heard_at + SILENCE_S - loop.time()
        if left > 0:
            self.silence = loop.call_later(left, self._check_silence)
        else:
            self.fail(NodeLost("the node that wrote the answer was lost, after some of it was read"))

    def close(self) -> None:
        if self.silence is not None:
            self.silence.cancel()


class Asker:
    """Use one per process and role; start it before use."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.name = token_hex(6)
        self._open: dict[str, _Open] = {}
        self._numbers = count()
        self._orphans: deque[str] = deque(maxlen=MAX_ORPHANS)
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(StreamAddress.of_asker(self.name), self._arrived)
        self.bus.on_disconnect.append(self._disconnected)
        self.bus.on_reconnect.append(self._reconnected)
        await self.bus.flush()

    async def stop(self) -> None:
        """Streams still open get an error."""
        self._fail_all(BusUnavailable("shutting down"))
        if self._disconnected in self.bus.on_disconnect:
            self.bus.on_disconnect.remove(self._disconnected)
            self.bus.on_reconnect.remove(self._reconnected)
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def new_id(self) -> str:
        """An id for a generation or a run whose stream comes to this asker."""
        return f"{self.name}.{next(self._numbers):x}"

    @property
    def open_streams(self) -> int:
        return len(self._open)

    def stream(self, work: Generation | Run, envelope: Envelope) -> AsyncGenerator[Event, None]:
        """Put `work` on its queue, and `follow` its stream."""
        return self.follow(work.id, envelope, partial(self._publish, work, envelope))

    async def follow(
        self, work_id: str, envelope: Envelope, send: Callable[[str], Awaitable[None]]
    ) -> AsyncGenerator[Event, None]:
        """Ask by `send`, and yield the events as they come; the last is an `Ended` without an error.

        `work_id` is of `new_id`. `send` gets a reply subject for the queue's acknowledgement.

        Raises the error the stream ended with, `QueueFull`, `DeadlineExceeded` at the envelope's
        deadline, `BusUnavailable` when NATS goes. Closing the iterator before the end cancels the work.
        Use it under `contextlib.aclosing`.
        """
        remaining = envelope.remaining(DEFAULT_DEADLINE_S)
        opened = self._open[work_id] = _Open()
        accepted = self.bus.expect(lambda reply: self._accepted(opened, reply))
        timer = asyncio.get_running_loop().call_later(
            remaining,
            opened.fail,
            DeadlineExceeded(f"no complete answer within {remaining:.1f} s"),
        )
        ended = False
        try:
            await send(accepted)
            expected = 0
            while not ended:
                message = await opened.arrived.get()
                if isinstance(message, OrchestraError):
                    raise message
                event = _decoded(message)
                if event.seq != OUT_OF_BAND and opened.is_from_rival(message):
                    continue
                if event.seq > expected:
                    raise NodeLost(f"the stream lost events {expected} to {event.seq - 1}")
                if isinstance(event, Ended):
                    ended = True
                    if event.error is not None:
                        raise from_body(event.error)
                    yield event
                elif event.seq == expected:
                    expected += 1
                    yield event
        finally:
            timer.cancel()
            opened.close()
            self.bus.forget(accepted)
            self._open.pop(work_id, None)
            if not ended and not opened.refused:
                self._cancel(work_id)

    async def _publish(self, work: Generation | Run, envelope: Envelope, accepted: str) -> None:
        if isinstance(work, Generation):
            subject = GenerationQueue(work.priority, work.model).subject
        else:
            subject = RunQueue(work.priority, work.pattern).subject
        headers = envelope.headers()
        headers[ID_HEADER] = work.id
        body = work.model_dump_json(exclude_defaults=True).encode()
        await self.bus.publish(subject, body, reply=accepted, headers=headers)

    @staticmethod
    def _accepted(opened: _Open, reply: Message) -> None:
        """The queue's acknowledgement: only a refusal is news."""
        try:
            if reply.status == "503":
                raise BusUnavailable("no stream takes the request; were the streams declared?")
            stored("of the request", reply)
        except OrchestraError as error:
            opened.refused = True
            opened.fail(error)

    def _cancel(self, work_id: str) -> None:
        try:
            self.bus.post(StreamAddress(work_id).cancel)
        except BusUnavailable:
            self._orphans.append(work_id)  # told when NATS is back: it may still be queued

    def _arrived(self, message: Message) -> None:
        opened = self._open.get(message.subject[len(STREAM_PREFIX) :])
        if opened is not None:
            opened.put(message)

    def _disconnected(self) -> None:
        self._fail_all(BusUnavailable("the connection to NATS was lost before the answer was complete"))

    def _reconnected(self) -> None:
        for _ in range(len(self._orphans)):
            self._cancel(self._orphans.popleft())

    def _fail_all(self, error: OrchestraError) -> None:
        for opened in self._open.values():
            opened.fail(error)


def _decoded(message: Message) -> Event:
    try:
        return EVENT.validate_json(message.data)
    except ValidationError as error:
        raise Defect(f"an event on {message.subject} cannot be read") from error
