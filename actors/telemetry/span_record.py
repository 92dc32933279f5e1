"""A span while it is recorded. `span_encoding.py` encodes it, in the thread that exports.

The SDK's own span costs 25 µs to start, fill and end, this one 4, and a plain chat has four spans. What
leaves the process is the SDK's all the same: batches, OTLP, retries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.util.types import AttributeValue

SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class SpanRecord:
    """A span. Ids are hexadecimal digits; `parent` is '' at the root of a trace. Times are Unix times in
    nanoseconds; `ended_ns` is 0 until its end."""

    __slots__ = (
        "attributes",
        "began_ns",
        "ended_ns",
        "failed",
        "id",
        "kind",
        "links",
        "name",
        "parent",
        "sampled",
        "trace",
    )

    context: ClassVar = SpanContext(1, 1, is_remote=False, trace_flags=SAMPLED)
    """The SDK's batches look here whether a span is sampled; those that get there are."""

    def __init__(
        self,
        name: str,
        trace: str,
        span_id: str,
        parent: str,
        kind: SpanKind,
        began_ns: int,
        attributes: dict[str, AttributeValue] | None = None,
        *,
        sampled: bool = True,
    ) -> None:
        """`attributes` become those of the span, which may change them."""
        self.name = name
        self.trace = trace
        self.id = span_id
        self.parent = parent
        self.kind = kind
        self.began_ns = began_ns
        self.ended_ns = 0
        self.attributes = {} if attributes is None else attributes
        self.links: Sequence[Link] = ()
        self.failed = False
        self.sampled = sampled
