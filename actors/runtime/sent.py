"""What the streams of this process have sent lately, so that a reader who lost some can have it again.

NATS passes events on at most once: while a reader's connection is made anew, as when the server it was
connected to dies, they are gone. Who misses some says from which number on, on `again.<id>`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.runtime.message import Message

PREFIX = "again."
AGAIN = f"{PREFIX}*.*"
KEPT_S = 15.0
"""After its end a stream is kept for so long: a dead connection is noticed within 9 s, and made anew."""
OUTAGE_S = 5.0
"""What ended longer ago had arrived before the connection broke."""
MAX_BYTES = 8 * 2**20
"""Of ended streams, in a process; the oldest are forgotten first."""


@dataclass(slots=True, eq=False)
class Tail:
    """The events of one stream from number `first_seq` on; `send` sends one of them again."""

    id: str
    first_seq: int
    send: Callable[[bytes], None]
    events: list[bytes] = field(default_factory=list)
    ended_at: float = 0.0
    size: int = 0


class Sent:
    """Of one connection."""

    def __init__(self) -> None:
        self._tails: dict[str, Tail] = {}
        self._ended: deque[Tail] = deque()
        self._bytes = 0

    def open(self, stream: str, first_seq: int, send: Callable[[bytes], None]) -> Tail:
        """Where to append what is sent. A stream that is written anew replaces the one before."""
        tail = self._tails[stream] = Tail(stream, first_seq, send)
        return tail

    def end(self, tail: Tail) -> None:
        """The last event was sent: keep it for a while."""
        tail.ended_at, tail.size = time.monotonic(), sum(map(len, tail.events))
        self._ended.append(tail)
        self._bytes += tail.size
        late = tail.ended_at - KEPT_S
        while self._ended and (self._ended[0].ended_at < late or self._bytes > MAX_BYTES):
            oldest = self._ended.popleft()
            self._bytes -= oldest.size
            self.drop(oldest)

    def drop(self, tail: Tail) -> None:
        """Another goes on with it, or nobody wants it."""
        if self._tails.get(tail.id) is tail:
            del self._tails[tail.id]

    def reconnected(self) -> None:
        """What was sent last may have died with the server that had it: send each stream's last event again.

        Who has read it ignores it; who misses some before it asks for that.
        """
        late = time.monotonic() - OUTAGE_S
        for tail in list(self._tails.values()):
            if tail.events and (not tail.ended_at or tail.ended_at > late):
                tail.send(tail.events[-1])

    def asked(self, message: Message) -> None:
        """Send again, in order, from the event whose number the message says."""
        tail = self._tails.get(message.subject[len(PREFIX) :])
        if tail is not None and message.data.isdigit():
            for event in tail.events[max(0, int(message.data) - tail.first_seq) :]:
                tail.send(event)
