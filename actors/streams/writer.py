"""The writing end of `stream.<id>`: numbered events, joined when they come fast, ended exactly once.

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
    FRAME_SEPARATOR,
    GenerationEnd,
    Progress,
    Step,
    StreamEnd,
    TextDelta,
    TokenLogprob,
    Vectors,
    WriterAlive,
    encode_event,
)

E = TypeVar("E", bound=StreamEnd)

log = logging.getLogger(__name__)

SLOW_INTERVAL_S = 0.005
"""A delta that comes this long after the one before it goes out at once, unless the event loop is behind."""
JOINED_INTERVAL_S = 0.020
"""Faster deltas are joined and go out this long after the last message: more than 50 messages a second of one
stream cost more than they help."""
UNREAD_HOLD_S = 0.020
"""How long the first text is held back when nobody reads it before the end: a short answer is one message."""
UNREAD_INTERVAL_S = 1.0
"""Time between two messages of such a stream. Another node that continues it loses no more than that."""
MAX_EVENT_CHARACTERS = 128 * 1024
"""Maximum characters of one event; longer text goes out in several. A character takes up to six bytes as
JSON, and NATS' default limit for a message is 1 MB."""
READER_ABSENT_S = 1.0
"""How long a reader may be away, as after the death of the server that it was connected to."""
KEEP_ALIVE_S = 1.0
"""How often a writer without text tells its reader that it is alive."""
OUT_OF_BAND = -1
"""The `seq` of messages outside the numbered events: a writer's keep-alive, or an end that the dispatcher
sends for a writer that died."""
_ALIVE = encode_event(OUT_OF_BAND, WriterAlive())
WRITER_HEADER = "Orchestra-Writer"
"""Name of the writer, on streams that a second writer continues."""
SUPERSEDED = b"superseded"
"""The reader's reply to a writer that another one has replaced."""


class StreamWriter:
    """Writes the events of one stream, from number `first_seq` on. `on_gone` is called when the
    reader has gone, or when another writer has taken over.

    Give `writer` when the work was delivered before: a reader can then tell the new events from those of a
    first writer that may still be alive. With `streamed` False the caller reads no text before the end, so
    more of it is joined.
    """

    def __init__(
        self,
        bus: Bus,
        address: StreamAddress,
        on_gone: Callable[[], object],
        writer: str = "",
        first_seq: int = 0,
        *,
        keep_alive_s: float = KEEP_ALIVE_S,
        streamed: bool = True,
    ) -> None:
        self.keep_alive_s = keep_alive_s
        self.streamed = streamed
        self.bus = bus
        self.subject = address.subject
        self.seq = first_seq
        self._on_gone = on_gone
        self._liveness_reply = bus.expect(self._on_liveness_reply)
        self._headers = {WRITER_HEADER: writer} if writer else None
        bus.loop_monitor.begin()
        self._tail = bus.replay_buffer.open(address, first_seq, self._liveness_reply, self._headers)
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._replaces = 0
        self._tokens = 0
        self._held = 0
        self._logprobs: list[TokenLogprob] = []
        self._sent_at = 0.0
        self._written_at = 0.0
        self._alive_at = time.monotonic()
        self._sent_again_at = -math.inf
        self._absence_timer: asyncio.TimerHandle | None = None
        self._started_at = 0.0
        self._flusher: asyncio.TimerHandle | None = None
        self._failure: OrchestraError | None = None
        self._closed = False
        self.superseded = False
        """Whether the reader ignores this writer: another one continues, or the stream has ended."""

    def _on_liveness_reply(self, message: Message) -> None:
        if message.data == SUPERSEDED:
            self.superseded = True
            self._on_gone()
        elif message.status == "503":
            if time.monotonic() - self._sent_again_at < READER_ABSENT_S:
                self._on_gone()
            elif self._absence_timer is None:
                self._absence_timer = asyncio.get_running_loop().call_later(
                    READER_ABSENT_S, self._send_last_again
                )

    def _send_last_again(self) -> None:
        """Whether the reader is back: it reads an event that comes twice only once."""
        self._absence_timer = None
        self._sent_again_at = time.monotonic()
        self.bus.replay_buffer.resend(self._tail, self._tail.events[-1])

    async def write(self, delta: TextDelta) -> None:
        """Add text or reasoning. It goes out at once, unless deltas come fast or the event loop is behind:
        then they are joined for `JOINED_INTERVAL_S`."""
        if self._failure is not None:
            raise self._failure
        text, reasoning = delta.text, delta.reasoning
        if delta.replaces:
            await self.flush()
            self._replaces = delta.replaces
        if len(text) + len(reasoning) > MAX_EVENT_CHARACTERS:
            await self._write_split(delta)
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
        self._started_at = self._started_at or now
        slow = now - self._written_at >= SLOW_INTERVAL_S
        self._written_at = now
        if self._flusher is not None:
            return
        wait_s = self._wait_s(now, slow)
        if wait_s <= 0:
            await self.flush()
        else:
            self._flusher = asyncio.get_running_loop().call_later(wait_s, self._flush_late)

    def _wait_s(self, now: float, slow: bool) -> float:
        """Seconds for which the text is held back, to be joined with more."""
        if not self.streamed:
            return self._sent_at + UNREAD_INTERVAL_S - now if self._sent_at else UNREAD_HOLD_S
        if slow and not self.bus.loop_monitor.is_behind(now):
            return 0.0
        return self._sent_at + JOINED_INTERVAL_S - now

    async def _write_split(self, delta: TextDelta) -> None:
        text, reasoning = delta.text, delta.reasoning
        for start in range(0, len(reasoning), MAX_EVENT_CHARACTERS):
            thought = reasoning[start : start + MAX_EVENT_CHARACTERS]
            await self.write(TextDelta(text="", tokens=0, reasoning=thought))
        for start in range(0, len(text), MAX_EVENT_CHARACTERS):
            await self.write(TextDelta(text=text[start : start + MAX_EVENT_CHARACTERS], tokens=0))
        await self.write(TextDelta(text="", tokens=delta.tokens, logprobs=delta.logprobs))

    def _flush_late(self) -> None:
        self._flusher = None
        delta = self._take_joined()
        if delta is not None:
            try:
                self.bus.post(
                    self.subject, self._encode(delta), reply=self._liveness_reply, headers=self._headers
                )
            except OrchestraError as error:
                self._failure = error  # the next `write`, or the end, raises it

    def _take_joined(self) -> TextDelta | None:
        """The deltas that wait, joined into one."""
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
        """Send the deltas that wait to be joined."""
        delta = self._take_joined()
        if delta is not None:
            await self._send(delta)

    def flush_now(self) -> None:
        """Do what `flush` does without waiting, for a writer that leaves the stream to another."""
        self._flush_late()

    def alive(self) -> None:
        """Tell the reader that the writer is alive, if nothing was sent for `keep_alive_s`."""
        now = time.monotonic()
        if now - self._alive_at < self.keep_alive_s or self._closed:
            return
        self._alive_at = now
        try:
            self.bus.post(self.subject, _ALIVE, reply=self._liveness_reply, headers=self._headers)
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
        """Do what `end` does without waiting, for a handler that is being stopped.

        Raises `BusUnavailable` when NATS is away, or when it was and the end would hide a gap.
        """
        delta = self._take_joined()
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise BusUnavailable(f"the stream {self.subject} has ended")
        last = b"" if delta is None else self._encode(delta) + FRAME_SEPARATOR
        writing_s = time.monotonic() - self._started_at if self._started_at else 0.0
        measured: dict[str, object] = {"writing_s": writing_s}
        if isinstance(end, GenerationEnd):
            measured["events"] = self.seq
        final = end.model_copy(update=measured)
        self.bus.post(self.subject, last + self._encode(final), headers=self._headers)
        self.bus.replay_buffer.end(self._tail)
        self._stop()
        return final

    def close(self) -> None:
        """Drop the stream without an end, when NATS is away. Does nothing after `end`."""
        if not self._closed:
            self.bus.replay_buffer.drop(self._tail)
            self._stop()

    def _stop(self) -> None:
        self._closed = True
        self.bus.loop_monitor.end()
        for timer in (self._flusher, self._absence_timer):
            if timer is not None:
                timer.cancel()
        self._flusher = self._absence_timer = None
        self.bus.forget(self._liveness_reply)

    async def _send(self, event: TextDelta | Vectors | Progress) -> None:
        if self._failure is not None:
            raise self._failure
        await self.bus.publish(
            self.subject, self._encode(event), reply=self._liveness_reply, headers=self._headers
        )

    def _encode(self, event: TextDelta | Vectors | Progress | StreamEnd) -> bytes:
        """The event as it is sent, now or again. One that cannot be encoded leaves no gap before the next:
        it raises pydantic's `PydanticSerializationError`."""
        data = encode_event(self.seq, event)
        self.seq += 1
        if not self._started_at:
            self._started_at = time.monotonic()
        self._tail.events.append(data)
        return data
