"""How the events of one stream get to its reader: over NATS, or straight to a reader in the same process."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from actors.bus.bus import Bus, LocalStream, Message
from actors.bus.subjects import StreamAddress
from orchestration.errors import OrchestraError
from orchestration.messages import (
    FRAME_SEPARATOR,
    Progress,
    RunEnd,
    StreamEnd,
    TextDelta,
    Vectors,
    WriterAlive,
    encode_event,
)

log = logging.getLogger(__name__)

READER_ABSENT_S = 1.0
"""How long a reader may be away, as after the death of the server that it was connected to."""
OUT_OF_BAND = -1
"""The `seq` of messages outside the numbered events: a writer's keep-alive, or an end that the dispatcher
sends for a writer that died."""
_ALIVE = encode_event(OUT_OF_BAND, WriterAlive())
WRITER_HEADER = "Orchestra-Writer"
"""Name of the writer, on streams that a second writer continues."""
SUPERSEDED = b"superseded"
"""The reader's reply to a writer that another one has replaced."""
MAX_JOINED_BYTES = 64 * 1024
"""The last text and the end of a stream are one message up to this size."""

NumberedEvent = TextDelta | Vectors | Progress


class StreamChannel(Protocol):
    """The way of one stream's events. `seq` is the number of the next one."""

    seq: int
    superseded: bool
    """Whether the reader ignores this writer: another one continues, or the stream has ended."""
    gone_ns: int
    """When the reader left, as Unix time in nanoseconds; 0: it has not, or when is not known here."""

    async def send(self, event: NumberedEvent) -> None:
        """Send an event; wait when the server takes messages more slowly than they come."""

    def post(self, event: NumberedEvent) -> None:
        """Send an event without waiting."""

    def alive(self) -> None:
        """Send a sign of life."""

    def end(self, last: TextDelta | None, end: StreamEnd) -> None:
        """Send the last text and the end, and close."""

    def drop(self) -> None:
        """Close without an end."""


class NatsChannel:
    """Sends events to `stream.<id>`. `on_gone` is called when the reader has gone, or has taken up another
    writer."""

    def __init__(
        self, bus: Bus, address: StreamAddress, on_gone: Callable[[], object], writer: str, first_seq: int
    ) -> None:
        self.bus = bus
        self.seq = first_seq
        self.superseded = False
        self.gone_ns = 0
        self._subject = address.subject
        self._on_gone = on_gone
        self._headers = {WRITER_HEADER: writer} if writer else None
        self._liveness_reply = bus.expect(self._on_liveness_reply)
        self._tail = bus.replay_buffer.open(address, first_seq, self._liveness_reply, self._headers)
        self._sent_again_at = -math.inf
        self._absence_timer: asyncio.TimerHandle | None = None

    async def send(self, event: NumberedEvent) -> None:
        await self.bus.publish(
            self._subject, self._encode(event), reply=self._liveness_reply, headers=self._headers
        )

    def post(self, event: NumberedEvent) -> None:
        self.bus.post(self._subject, self._encode(event), reply=self._liveness_reply, headers=self._headers)

    def alive(self) -> None:
        try:
            self.bus.post(self._subject, _ALIVE, reply=self._liveness_reply, headers=self._headers)
        except OrchestraError as error:
            log.debug("the reader of %s cannot hear that its writer is alive: %s", self._subject, error)

    def end(self, last: TextDelta | None, end: StreamEnd) -> None:
        text = b"" if last is None else self._encode(last)
        try:
            data = self._encode(end)
        except Exception:
            self._post_text(text)
            raise
        if text and len(text) + len(data) <= MAX_JOINED_BYTES:
            data = text + FRAME_SEPARATOR + data
        else:
            self._post_text(text)
        self.bus.post(self._subject, data, headers=self._headers)
        self.bus.replay_buffer.end(self._tail)
        self._close()

    def _post_text(self, data: bytes) -> None:
        if data:
            self.bus.post(self._subject, data, headers=self._headers)

    def drop(self) -> None:
        self.bus.replay_buffer.drop(self._tail)
        self._close()

    def _close(self) -> None:
        if self._absence_timer is not None:
            self._absence_timer.cancel()
            self._absence_timer = None
        self.bus.forget(self._liveness_reply)

    def _encode(self, event: NumberedEvent | StreamEnd) -> bytes:
        """The event as it is sent, now or again. One that cannot be encoded leaves no gap before the next:
        it raises pydantic's `PydanticSerializationError`."""
        data = encode_event(self.seq, event)
        self.seq += 1
        self._tail.events.append(data)
        return data

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


class LocalChannel:
    """Hands events to a reader in this process. `readers` are its client's open streams by id."""

    def __init__(
        self,
        readers: Mapping[str, LocalStream],
        stream_id: str,
        on_gone: Callable[[], object],
        writer: str,
        first_seq: int,
    ) -> None:
        self.seq = first_seq
        self.superseded = False
        self.gone_ns = 0
        self._readers = readers
        self._reader = readers.get(stream_id)
        self._id = stream_id
        self._on_gone = on_gone
        self._writer = writer

    async def send(self, event: NumberedEvent) -> None:
        self.post(event)

    def post(self, event: NumberedEvent) -> None:
        seq = self.seq
        self.seq += 1
        self._give(seq, event)

    def alive(self) -> None:
        self._give(OUT_OF_BAND, WriterAlive())

    def end(self, last: TextDelta | None, end: StreamEnd) -> None:
        if last is not None:
            self.post(last)
        if isinstance(end, RunEnd):
            encode_event(self.seq, end)  # a report that is not JSON fails here as it does over NATS
        reader = self._readers.get(self._id)
        if reader is not None:
            reader.take(self.seq, end, self._writer)
        self.seq += 1

    def drop(self) -> None:
        """Nothing is kept."""

    def _give(self, seq: int, event: NumberedEvent | WriterAlive) -> None:
        reader = self._readers.get(self._id)
        if reader is None:
            self.gone_ns = self._reader.left_ns if self._reader is not None else 0
            self._on_gone()
        elif not reader.take(seq, event, self._writer):
            self.superseded = True
            self._on_gone()


def open_channel(
    bus: Bus, address: StreamAddress, on_gone: Callable[[], object], writer: str, first_seq: int
) -> StreamChannel:
    """The shortest way to the reader of a stream."""
    readers = bus.local_streams.get(address.id.partition(".")[0])
    if readers is not None and bus.settings.local_delivery:
        return LocalChannel(readers, address.id, on_gone, writer, first_seq)
    return NatsChannel(bus, address, on_gone, writer, first_seq)
