"""Keeps the events that this process sent lately, so that a reader that lost some can have them again.

NATS delivers events at most once. Those sent while a reader reconnects are lost, for example when its server
dies. The reader asks for them by the number of the first one, on `stream_replay.<id>`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from actors.bus.message import Headers, Message
from actors.bus.subjects import StreamAddress
from orchestration.errors import OrchestraError

RETENTION_S = 15.0
"""How long a stream is kept after its end: a dead connection is noticed within 9 s, and then replaced."""
OUTAGE_S = 5.0
"""A stream that ended longer ago had arrived before the connection broke."""
MAX_BYTES = 16 * 2**20
"""Maximum bytes kept for ended streams per process; the oldest are evicted."""
STREAM_BYTES, EVENT_BYTES = 400, 45
"""Memory of one stream and of one event beside the data (measured on CPython 3.11)."""

Post = Callable[..., None]
"""`Bus.post`."""


@dataclass(slots=True, eq=False)
class StreamTail:
    """The events of one stream from number `first_seq` on, and the headers that each had.

    Until the stream ends, `reply` receives the server's notice that no reader is left. This holds neither the
    writer nor its task."""

    address: StreamAddress
    first_seq: int
    reply: str
    headers: Headers | None
    events: list[bytes] = field(default_factory=list)
    ended_at: float = 0.0
    size: int = 0


class ReplayBuffer:
    """The streams of one connection, which sends by `post`."""

    def __init__(
        self,
        post: Post,
        *,
        max_bytes: int = MAX_BYTES,
        retention_s: float = RETENTION_S,
        outage_s: float = OUTAGE_S,
    ) -> None:
        self.max_bytes = max_bytes
        self.retention_s = retention_s
        self.outage_s = outage_s
        self._post = post
        self._tails: dict[str, StreamTail] = {}
        self._ended: deque[StreamTail] = deque()
        self._bytes = 0

    def open(self, address: StreamAddress, first_seq: int, reply: str, headers: Headers | None) -> StreamTail:
        """Add a stream, and return the tail for its events. It replaces a stream with the same id."""
        tail = self._tails[address.id] = StreamTail(address, first_seq, reply, headers)
        return tail

    def end(self, tail: StreamTail) -> None:
        """Keep an ended stream for `retention_s`."""
        tail.reply = ""
        tail.ended_at = time.monotonic()
        tail.size = sum(map(len, tail.events)) + EVENT_BYTES * len(tail.events) + STREAM_BYTES
        self._ended.append(tail)
        self._bytes += tail.size
        late = tail.ended_at - self.retention_s
        while self._ended and (self._ended[0].ended_at < late or self._bytes > self.max_bytes):
            oldest = self._ended.popleft()
            self._bytes -= oldest.size
            self.drop(oldest)

    def drop(self, tail: StreamTail) -> None:
        """Remove a stream that another writer continues or no reader wants."""
        if self._tails.get(tail.address.id) is tail:
            del self._tails[tail.address.id]

    def on_reconnect(self) -> None:
        """What was sent last may have died with the server that had it: send each stream's last event again.

        Who has read it ignores it; who misses some before it asks for that.
        """
        late = time.monotonic() - self.outage_s
        for tail in list(self._tails.values()):
            if tail.events and (not tail.ended_at or tail.ended_at > late):
                self.resend(tail, tail.events[-1])

    def on_request(self, message: Message) -> None:
        """Send again, in order, from the event whose number the message says."""
        tail = self._tails.get(StreamAddress.parse(message.subject).id)
        if tail is not None and message.data.isdigit():
            for event in tail.events[max(0, int(message.data) - tail.first_seq) :]:
                self.resend(tail, event)

    def resend(self, tail: StreamTail, event: bytes) -> None:
        """Send one of its events once more."""
        with suppress(OrchestraError):  # the reader asks again
            self._post(tail.address.subject, event, reply=tail.reply, headers=tail.headers)
