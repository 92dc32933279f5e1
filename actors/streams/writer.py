"""The writing end of `stream.<id>`: numbered events, coalesced when they come fast, ended exactly once.

The reading end is `actors.streams.client`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import TypeVar

from actors.bus.bus import Bus, Message
from actors.bus.subjects import StreamAddress
from actors.streams.characters import whole_characters
from orchestration.errors import BusUnavailable, OrchestraError
from orchestration.fitting import shortened_step
from orchestration.messages import (
    GenerationEnd,
    Progress,
    Step,
    StreamEnd,
    TextDelta,
    TokenLogprob,
    Vectors,
    encode_event,
)

E = TypeVar("E", bound=StreamEnd)

log = logging.getLogger(__name__)

MIN_DELTA_INTERVAL_S = 0.020
"""Chunks closer than this are joined: above about 50 a second the messages cost more than they give."""
MAX_EVENT_CHARACTERS = 128 * 1024
"""Of one event; more goes out in several. As JSON one may take six bytes, and a message of a NATS server with
its usual settings 1 MB."""
READER_ABSENT_S = 1.0
"""A reader may be away for so long, as when the server dies that it was connected to."""
KEEP_ALIVE_S = 1.0
"""How often a writer with nothing to say lets its reader know that it lives."""
OUT_OF_BAND = -1
"""The `seq` of what is no part of the numbered events: a sign of life of who writes, or an end by who watched
over it."""
_ALIVE = encode_event(OUT_OF_BAND, TextDelta(text="", tokens=0))
WRITER_HEADER = "Orchestra-Writer"
"""Names who writes, where a stream is written a second time; see `StreamReader`."""
SUPERSEDED = b"retired"
"""What a reader answers to a writer that was given up, and whose stream goes on elsewhere."""


class StreamWriter:
    """Writes the events of one stream, from number `first_seq` on. `on_gone` is called when nobody listens
    any more, or when another writer has taken over.

    `writer` is given where the work was delivered before, so that a reader can tell the new events from
    those of a first writer that may still be alive.
    """

    def __init__(
        self,
        bus: Bus,
        address: StreamAddress,
        on_gone: Callable[[], object],
        writer: str = "",
        first_seq: int = 0,
    ) -> None:
        self.bus = bus
        self.subject = address.subject
        self.seq = first_seq
        self._on_gone = on_gone
        self._probe = bus.expect(self._probed)
        self._headers = {WRITER_HEADER: writer} if writer else None
        self._tail = bus.replay_buffer.open(address, first_seq, self._probe, self._headers)
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._replaces = 0
        self._tokens = 0
        self._held = 0
        self._logprobs: list[TokenLogprob] = []
        self._sent_at = 0.0
        self._alive_at = time.monotonic()
        self._asked_at = -math.inf
        self._doubt: asyncio.TimerHandle | None = None
        self._began_at = 0.0
        self._flusher: asyncio.TimerHandle | None = None
        self._failure: OrchestraError | None = None
        self._closed = False
        self.superseded = False
        """Whether the reader no longer hears this writer: another one goes on, or the stream is over."""

    def _probed(self, message: Message) -> None:
        if message.data == SUPERSEDED:
            self.superseded = True
            self._on_gone()
        elif message.status == "503":
            if time.monotonic() - self._asked_at < READER_ABSENT_S:
                self._on_gone()
            elif self._doubt is None:
                self._doubt = asyncio.get_running_loop().call_later(READER_ABSENT_S, self._ask_once_more)

    def _ask_once_more(self) -> None:
        """Whether the reader is back: it reads an event that comes twice only once."""
        self._doubt = None
        self._asked_at = time.monotonic()
        self.bus.replay_buffer.again(self._tail, self._tail.events[-1])

    async def write(self, delta: TextDelta) -> None:
        """Add text or reasoning. The first delta goes out at once; later ones are joined, and go out at most
        every 20 ms."""
        if self._failure is not None:
            raise self._failure
        text, reasoning = delta.text, delta.reasoning
        if delta.replaces:
            await self.flush()
            self._replaces = delta.replaces
        if len(text) + len(reasoning) > MAX_EVENT_CHARACTERS:
            await self._in_parts(delta)
            return
        if self._held + len(text) + len(reasoning) > MAX_EVENT_CHARACTERS:
            await self.flush()
        self._held += len(text) + len(reasoning)
        if reasoning and self._text:
            await self.flush()  # in an event the reasoning comes first
        self._tokens += delta.tokens
        if not text and not delta.logprobs and not reasoning:
            self.alive()
            return
        if text or delta.logprobs:
            self._text.append(text)
        if reasoning:
            self._reasoning.append(reasoning)
        if delta.logprobs:
            self._logprobs.extend(delta.logprobs)
        now = time.monotonic()
        if now - self._sent_at >= MIN_DELTA_INTERVAL_S:
            await self.flush()
        elif self._flusher is None:
            loop = asyncio.get_running_loop()
            self._flusher = loop.call_later(self._sent_at + MIN_DELTA_INTERVAL_S - now, self._flush_late)

    async def _in_parts(self, delta: TextDelta) -> None:
        text, reasoning = delta.text, delta.reasoning
        for start in range(0, len(reasoning), MAX_EVENT_CHARACTERS):
            thought = reasoning[start : start + MAX_EVENT_CHARACTERS]
            await self.write(TextDelta(text="", tokens=0, reasoning=thought))
        for start in range(0, len(text), MAX_EVENT_CHARACTERS):
            await self.write(TextDelta(text=text[start : start + MAX_EVENT_CHARACTERS], tokens=0))
        await self.write(TextDelta(text="", tokens=delta.tokens, logprobs=delta.logprobs))

    def _flush_late(self) -> None:
        self._flusher = None
        delta = self._take()
        if delta is not None:
            try:
                self.bus.post(self.subject, self._noted(delta), reply=self._probe, headers=self._headers)
            except OrchestraError as error:
                self._failure = error  # the next `write`, or the end, raises it

    def _take(self) -> TextDelta | None:
        """What was held back, as the next event."""
        if self._flusher is not None:
            self._flusher.cancel()
            self._flusher = None
        if not self._text and not self._reasoning:
            return None
        delta = TextDelta(
            text=whole_characters("".join(self._text)),
            tokens=self._tokens,
            logprobs=tuple(self._logprobs) or None,
            reasoning=whole_characters("".join(self._reasoning)),
            replaces=self._replaces if self._text else 0,
        )
        if self._text:
            self._replaces = 0
        self._text, self._reasoning, self._tokens, self._logprobs = [], [], 0, []
        self._held = 0
        self._sent_at = self._alive_at = time.monotonic()
        return delta

    async def flush(self) -> None:
        """Send what was held back."""
        delta = self._take()
        if delta is not None:
            await self._send(delta)

    def flush_now(self) -> None:
        """The same without waiting, for a writer that leaves the stream to another."""
        self._flush_late()

    def alive(self) -> None:
        """Let the reader know that the answer is being worked on, where it has heard nothing for a while."""
        now = time.monotonic()
        if now - self._alive_at < KEEP_ALIVE_S or self._closed:
            return
        self._alive_at = now
        try:
            self.bus.post(self.subject, _ALIVE, reply=self._probe, headers=self._headers)
        except OrchestraError as error:
            log.debug("the reader of %s cannot hear that its writer is alive: %s", self.subject, error)

    async def vectors(self, vectors: Vectors) -> None:
        await self._send(vectors)

    async def progress(self, text: str, step: Step | None = None) -> None:
        await self.flush()
        step = None if step is None else shortened_step(step)
        await self._send(Progress(text=text[:MAX_EVENT_CHARACTERS], step=step))

    async def end(self, end: E) -> E:
        """Send what was held back, and the end, whose `writing_s` and `events` are set here. Returns what was
        sent."""
        return self.end_now(end)

    def end_now(self, end: E) -> E:
        """The same for code that must not wait, such as a handler that was told to stop.

        Raises `BusUnavailable` when NATS is away, or when it was and the end would hide a gap.
        """
        delta = self._take()
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise BusUnavailable(f"the stream {self.subject} has ended")
        if delta is not None:
            self.bus.post(self.subject, self._noted(delta), headers=self._headers)
        writing_s = time.monotonic() - self._began_at if self._began_at else 0.0
        measured: dict[str, object] = {"writing_s": writing_s}
        if isinstance(end, GenerationEnd):
            measured["events"] = self.seq
        final = end.model_copy(update=measured)
        self.bus.post(self.subject, self._noted(final), headers=self._headers)
        self.bus.replay_buffer.end(self._tail)
        self._stop()
        return final

    def close(self) -> None:
        """Forget the stream without an end, when NATS is away. Harmless after `end`."""
        if not self._closed:
            self.bus.replay_buffer.drop(self._tail)
            self._stop()

    def _stop(self) -> None:
        self._closed = True
        for timer in (self._flusher, self._doubt):
            if timer is not None:
                timer.cancel()
        self._flusher = self._doubt = None
        self.bus.forget(self._probe)

    async def _send(self, event: TextDelta | Vectors | Progress) -> None:
        if self._failure is not None:
            raise self._failure
        await self.bus.publish(self.subject, self._noted(event), reply=self._probe, headers=self._headers)

    def _noted(self, event: TextDelta | Vectors | Progress | StreamEnd) -> bytes:
        """The event as it is sent, now or again. One that cannot be encoded leaves no gap before the next:
        it raises pydantic's `PydanticSerializationError`."""
        data = encode_event(self.seq, event)
        self.seq += 1
        if not self._began_at:
            self._began_at = time.monotonic()
        self._tail.events.append(data)
        return data
