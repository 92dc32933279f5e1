"""Has NATS servers trace the messages of sampled requests (ADR-41 of NATS).

A server that gets a message with `Nats-Trace-Dest` publishes there what it did with the message; so does each
further server that the message crosses. The header is set here alone, on messages that have a sampled
`traceparent`, and not by the servers' configuration: the account of clients without a name, which Orchestra's
servers use, cannot have `msg_trace`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from prometheus_client import Counter

from actors.bus.message import Headers

TRACEPARENT = "traceparent"
DESTINATION = "Nats-Trace-Dest"
_SAMPLED = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]")

SKIPPED = Counter(
    "orchestra_nats_traces_skipped",
    "Messages of traced requests that no NATS server was asked to trace, because the limit was reached",
)


class MessageTracer:
    """Marks the messages of sampled traces, at most `per_second` a second, so that servers tell of them at
    `destination`. `on_mark` is called with the `traceparent` of each."""

    __slots__ = ("_second", "_used", "destination", "on_mark", "per_second")

    def __init__(self, destination: str, on_mark: Callable[[str], None], *, per_second: int) -> None:
        self.destination = destination
        self.on_mark = on_mark
        self.per_second = per_second
        self._second = 0
        self._used = 0

    def marked(self, headers: Headers) -> Headers:
        """The headers of a message, with the destination if servers are to trace it."""
        parent = headers.get(TRACEPARENT)
        if parent is None or not is_sampled(parent):
            return headers
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._used = second, 0
        if self._used >= self.per_second:
            SKIPPED.inc()
            return headers
        self._used += 1
        self.on_mark(parent)
        return headers | {DESTINATION: self.destination}


def is_sampled(parent: str) -> bool:
    """Whether `parent` is a W3C traceparent with the sampled flag set."""
    return _SAMPLED.fullmatch(parent) is not None
