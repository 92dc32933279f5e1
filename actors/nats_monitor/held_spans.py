"""Holds the spans of NATS servers until the span of the sender, which is their parent, has ended.

A sender may drop its span, because nobody was there or because the work goes on elsewhere; or its process
dies. Then the spans below it are not exported either: nobody would have their parent.

A child lies inside its parent. A server may have another clock, and handle a message after its sender has
gone on, so times are moved into those of the sender's span where they lie outside.
"""

from __future__ import annotations

from collections import OrderedDict

from actors.nats_monitor.message_records import MessageSpan
from actors.telemetry.span_record import SpanRecord
from actors.telemetry.tracing import start_span

MAX_SENDERS = 10_000
"""Spans of senders that are remembered; the oldest are forgotten."""
MAX_HELD = 64
"""Spans that are held for one sender."""

Period = tuple[int, int]
"""Begin and end as Unix times in nanoseconds."""


class HeldSpans:
    """The spans of servers, by the sender's span."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, list[tuple[MessageSpan, str]] | Period] = OrderedDict()
        """By the ids of a trace and of the sender's span in it, as a `traceparent` has them: what waits for
        the end of that span, or when it began and ended."""

    def __len__(self) -> int:
        return len(self._held)

    def expect(self, parent: str) -> None:
        """Servers will tell of a message that was sent below the span `parent`, a `traceparent`."""
        key = _key(parent)
        if key not in self._held:
            self._held[key] = []
            if len(self._held) > MAX_SENDERS:
                self._held.popitem(last=False)

    def add(self, span: MessageSpan, parent: str) -> bool:
        """Export `span` once its parent has ended; returns whether the parent is known."""
        key = _key(parent)
        if key not in self._held:
            return False
        held = self._held[key]
        if isinstance(held, tuple):
            export_span(span, parent, held)
        elif len(held) < MAX_HELD:
            held.append((span, parent))
        return True

    def on_end(self, span: SpanRecord) -> None:
        """A span of this process has ended: export what was held for it."""
        if not self._held:
            return
        key = f"{span.trace}-{span.id}"
        held = self._held.get(key)
        if isinstance(held, list):
            period = self._held[key] = span.began_ns, span.ended_ns
            for below, parent in held:
                export_span(below, parent, period)


def export_span(span: MessageSpan, parent: str, within: Period) -> None:
    """Export a span of a server, and those below it, inside the period of its parent."""
    began_ns, ended_ns = (min(max(at, within[0]), within[1]) for at in (span.began_ns, span.ended_ns))
    opened = start_span(span.name, parent, span.attributes, began_ns=began_ns)
    for child in span.children:
        export_span(child, opened.traceparent, (began_ns, ended_ns))
    if span.error:
        opened.fail_as(span.error)
    opened.end(at_ns=ended_ns)


def _key(parent: str) -> str:
    return parent[3:52]
