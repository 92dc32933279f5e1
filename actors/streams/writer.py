"""The writing end of `stream.<id>`: numbered events, joined when they come fast, ended exactly once.

The reading end is `actors.streams.client`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from actors.bus.bus import Bus
from actors.bus.subjects import StreamAddress
from actors.streams.channel import NumberedEvent, open_channel
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
LOGPROB_CHARACTERS = 24
"""What a log probability counts for in that limit: about 100 bytes as JSON."""
KEEP_ALIVE_S = 1.0
"""How often a writer without text tells its reader that it is alive."""


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
        self._channel = open_channel(bus, address, on_gone, writer, first_seq)
        bus.loop_monitor.begin()
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._replaces = 0
        self._tokens = 0
        self._held = 0
        self._logprobs: list[TokenLogprob] = []
        self._sent_at = 0.0
        self._written_at = 0.0
        self._alive_at = time.monotonic()
        self._started_at = 0.0
        self._flusher: asyncio.TimerHandle | None = None
        self._failure: OrchestraError | None = None
        self._closed = False

    @property
    def superseded(self) -> bool:
        """Whether the reader ignores this writer: another one continues, or the stream has ended."""
        return self._channel.superseded

    @property
    def gone_ns(self) -> int:
        """When the reader left, as Unix time in nanoseconds; 0: it has not, or when is not known here."""
        return self._channel.gone_ns

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
        size = len(text) + len(reasoning)
        if delta.logprobs:
            size += LOGPROB_CHARACTERS * sum(1 + len(each.top_logprobs) for each in delta.logprobs)
        if self._held + size > MAX_EVENT_CHARACTERS:
            await self.flush()
        self._held += size
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
                self._channel.post(delta)
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
        self._channel.alive()

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
        writing_s = time.monotonic() - self._started_at if self._started_at else 0.0
        measured: dict[str, object] = {"writing_s": writing_s}
        if isinstance(end, GenerationEnd):
            measured["events"] = self._channel.seq + (delta is not None)
            measured["ended_at"] = time.time()
        final = end.model_copy(update=measured)
        self._channel.end(delta, final)
        self._stop()
        return final

    def close(self) -> None:
        """Drop the stream without an end, when NATS is away. Does nothing after `end`."""
        if not self._closed:
            self._channel.drop()
            self._stop()

    def _stop(self) -> None:
        self._closed = True
        self.bus.loop_monitor.end()
        if self._flusher is not None:
            self._flusher.cancel()
            self._flusher = None

    async def _send(self, event: NumberedEvent) -> None:
        if self._failure is not None:
            raise self._failure
        self._started_at = self._started_at or time.monotonic()
        await self._channel.send(event)
