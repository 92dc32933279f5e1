"""The writing end of `stream.<id>`: numbered events, coalesced when they come fast, ended exactly once.

The reading end is `actors.asker`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from actors.runtime.bus import Bus, Message
from actors.runtime.subjects import StreamAddress
from orchestration.messages import Chunk, Ended, Progress, Step, TokenLogprob, Vectors

FAST_CHUNK_S = 0.020
"""Chunks closer than this are joined: above about 50 a second the messages cost more than they give."""


class StreamWriter:
    """Writes the events of one stream. `on_gone` is called when nobody listens any more."""

    def __init__(self, bus: Bus, address: StreamAddress, on_gone: Callable[[], object]) -> None:
        self.bus = bus
        self.subject = address.subject
        self.seq = 0
        self._on_gone = on_gone
        self._probe = bus.expect(self._probed)
        self._text: list[str] = []
        self._tokens = 0
        self._logprobs: list[TokenLogprob] = []
        self._sent_at = 0.0
        self._flusher: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None

    def _probed(self, message: Message) -> None:
        if message.status == "503":
            self._on_gone()

    async def piece(self, text: str, tokens: int, logprobs: tuple[TokenLogprob, ...] | None = None) -> None:
        """Add text. The first piece goes out at once, later ones at most every 20 ms."""
        if not text and not logprobs:
            self._tokens += tokens
            return
        self._text.append(text)
        self._tokens += tokens
        if logprobs:
            self._logprobs.extend(logprobs)
        now = time.monotonic()
        if now - self._sent_at >= FAST_CHUNK_S:
            await self.flush()
        elif self._flusher is None:
            loop = asyncio.get_running_loop()
            self._flusher = loop.call_later(self._sent_at + FAST_CHUNK_S - now, self._flush_later)

    def _flush_later(self) -> None:
        self._flusher = None
        self._sending = asyncio.get_running_loop().create_task(self.flush())

    async def flush(self) -> None:
        """Send what was held back."""
        if self._flusher is not None:
            self._flusher.cancel()
            self._flusher = None
        if not self._text:
            return
        text, tokens = "".join(self._text), self._tokens
        logprobs = tuple(self._logprobs) or None
        self._text, self._tokens, self._logprobs = [], 0, []
        self._sent_at = time.monotonic()
        await self._send(Chunk(seq=self._next(), text=text, tokens=tokens, logprobs=logprobs))

    async def vectors(self, index: int, vectors: tuple[str, ...]) -> None:
        await self._send(Vectors(seq=self._next(), index=index, vectors=vectors))

    async def progress(self, text: str, step: Step | None = None) -> None:
        await self.flush()
        await self._send(Progress(seq=self._next(), text=text, step=step))

    async def end(self, ended: Ended) -> Ended:
        """Send what was held back, and the end; `seq` of `ended` is set here. Returns what was sent."""
        await self.flush()
        if self._sending is not None and not self._sending.done():
            await self._sending
        final = ended.model_copy(update={"seq": self._next()})
        self.bus.forget(self._probe)
        await self.bus.publish(self.subject, final.model_dump_json(exclude_defaults=False).encode())
        return final

    def close(self) -> None:
        """Forget the stream without an end, when NATS is away. Harmless after `end`."""
        if self._flusher is not None:
            self._flusher.cancel()
            self._flusher = None
        self.bus.forget(self._probe)

    def _next(self) -> int:
        seq = self.seq
        self.seq += 1
        return seq

    async def _send(self, event: Chunk | Vectors | Progress) -> None:
        await self.bus.publish(self.subject, event.model_dump_json().encode(), reply=self._probe)
