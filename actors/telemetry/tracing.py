"""Traces of requests. It costs nothing until it is switched on: see `actors.telemetry.otlp`.

A span is started below a W3C `traceparent`, which travels in the envelope of every message, and is ended
explicitly. There is no current span: async generators and tasks that outlive a message would leave theirs to
others.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from hashlib import blake2b
from random import getrandbits
from types import TracebackType
from typing import Protocol

from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.util.types import AttributeValue

from actors.telemetry import conventions as names
from actors.telemetry.content import Redactor
from actors.telemetry.span_record import SpanRecord
from orchestration.errors import Cancelled, OrchestraError

TRACEPARENT = re.compile("[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_is_traceparent = TRACEPARENT.fullmatch
_ODD = frozenset("13579bdf")
_RATIO_BITS = 64
_SERVER_ERRORS = 500
Attributes = Mapping[str, AttributeValue]
NO_ATTRIBUTES: Attributes = {}


class Scope:
    """When the work that spans describe is over for whoever asked for it. No span of it ends later: a node
    that is told to stop, say, ends a moment after the request that it worked for."""

    __slots__ = ("_over_ns", "_within")

    def __init__(self, over_at: float = 0.0, within: Scope | None = None) -> None:
        """`over_at` is a Unix time in seconds; 0: not known yet. The work is also over when that of
        `within` is."""
        self._over_ns = int(over_at * 1e9)
        self._within = within

    @property
    def over_ns(self) -> int:
        """Unix time in nanoseconds; 0: not over, as far as is known here."""
        outer = self._within.over_ns if self._within is not None else 0
        return min(outer, self._over_ns) if outer and self._over_ns else outer or self._over_ns

    def close(self, at_ns: int = 0) -> None:
        """The work is over since `at_ns`; 0: since now. Closing it again, later, changes nothing."""
        at_ns = at_ns or time.time_ns()
        if not self._over_ns or at_ns < self._over_ns:
            self._over_ns = at_ns


current_scope: ContextVar[Scope | None] = ContextVar("orchestra_scope", default=None)
"""The scope of the message that the running handler works on."""


def over_ns() -> int:
    """When the work of the running handler was over for its caller, or now: the time to tell those who are
    to stop working for it."""
    scope = current_scope.get()
    return (scope.over_ns if scope is not None else 0) or time.time_ns()


class LogSink(Protocol):
    """Exports log records."""

    def emit(
        self, name: str, attributes: Attributes, context: SpanContext, at_ns: int, level: str, body: str
    ) -> None: ...


class Tracer:
    """Decides which traces are sampled, and hands ended spans on to `on_end`."""

    def __init__(self, on_end: Callable[[SpanRecord], None], sample_ratio: float = 1.0) -> None:
        self.on_end = on_end
        self.sample_ratio = sample_ratio

    def samples(self, trace: int) -> bool:
        """Whether a new trace of that id is sampled, as the SDK's `TraceIdRatioBased` decides."""
        return trace % (1 << _RATIO_BITS) < round(self.sample_ratio * (1 << _RATIO_BITS))


class Tracing:
    """The state of this process: one tracer, or none."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        self.logs: LogSink | None = None
        self.keeps_unsampled = False
        """Whether spans of traces that are not sampled are recorded, for `TailSampler`."""
        self.links_clients = False
        self.content: Redactor | None = None
        """Redacts content; None: content is not recorded."""


tracing = Tracing()


class OpenSpan:
    """A span that was started, to be ended once; as a context manager it ends with the error of its block."""

    __slots__ = ("_scope", "_span", "traceparent")

    def __init__(self, span: SpanRecord | None, traceparent: str, scope: Scope | None = None) -> None:
        self._span = span
        self.traceparent = traceparent
        """For what happens below this span; the parent's where nothing is recorded, and '' without
        tracing."""
        self._scope = scope

    @property
    def recording(self) -> bool:
        """Whether attributes are of use. Callers that would compute something ask first."""
        return self._span is not None

    def set(self, attributes: Attributes) -> None:
        if self._span is not None:
            self._span.attributes.update(attributes)

    def link(self, traceparent: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Link to another span, of this or another trace."""
        if self._span is not None and (context := span_context(traceparent)) is not None:
            self._span.links = (*self._span.links, Link(context, attributes))

    def fail(self, error: BaseException, *, server: bool = False) -> None:
        """Note the error. One of the caller, of status 4xx, is no failure of a `server`; a caller that
        leaves is none of anybody. Texts of errors may have content, so only the code is recorded."""
        span = self._span
        if span is None:
            return
        if isinstance(error, asyncio.CancelledError | GeneratorExit | Cancelled):
            span.attributes[names.OUTCOME] = "cancelled"
            return
        known = isinstance(error, OrchestraError)
        code = error.code if isinstance(error, OrchestraError) else type(error).__name__
        span.attributes[names.OUTCOME] = code
        if isinstance(error, OrchestraError) and error.status == 499:
            return
        if server and known and isinstance(error, OrchestraError) and error.status < _SERVER_ERRORS:
            return
        self.fail_as(code)

    def fail_as(self, code: str) -> None:
        """Note an error that no exception stands for, by its `error.type`."""
        if self._span is not None:
            self._span.attributes[names.ERROR_TYPE] = code
            self._span.failed = True

    def end(self, error: BaseException | None = None, *, at_ns: int = 0) -> None:
        """End the span, now or at `at_ns`, but not after its scope. A second end does nothing."""
        span = self._span
        if span is None:
            return
        if error is not None:
            self.fail(error)
        self._span = None
        at_ns = at_ns or time.time_ns()
        if self._scope is not None and (over := self._scope.over_ns):
            at_ns = min(at_ns, over)
        span.ended_ns = max(at_ns, span.began_ns)
        if tracing.tracer is not None:
            tracing.tracer.on_end(span)

    def abandon(self) -> None:
        """Never export the span: its work goes on elsewhere, or nobody has its parent."""
        self._span = None

    def __enter__(self) -> OpenSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)


NO_SPAN = OpenSpan(None, "")
"""What is not recorded; its `traceparent` is ''."""


def start_span(
    name: str,
    parent: str,
    attributes: Attributes = NO_ATTRIBUTES,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[str] = (),
    began_ns: int = 0,
    scope: Scope | None = None,
    span_id: int = 0,
) -> OpenSpan:
    """A span below the W3C traceparent `parent`; the root of a trace when that is '' or invalid.

    `links` are traceparents. `began_ns` is its start, by default now. `scope` is by default that of the
    running handler.
    """
    tracer = tracing.tracer
    if tracer is None:
        return NO_SPAN
    if parent and _is_traceparent(parent):
        trace, above, sampled = parent[3:35], parent[36:52], parent[54] in _ODD
    else:
        number = getrandbits(128) or 1
        trace, above, sampled = f"{number:032x}", "", tracer.samples(number)
    records = sampled or tracing.keeps_unsampled
    if above and not records:
        return OpenSpan(None, parent)
    own = f"{span_id or getrandbits(64) or 1:016x}"
    header = f"00-{trace}-{own}-{'01' if sampled else '00'}"
    if not records:
        return OpenSpan(None, header)
    began_ns = began_ns or time.time_ns()
    record = SpanRecord(name, trace, own, above, kind, began_ns, dict(attributes), sampled=sampled)
    if links:
        record.links = [Link(linked) for link in links if (linked := span_context(link)) is not None]
    return OpenSpan(record, header, current_scope.get() if scope is None else scope)


@lru_cache(maxsize=1024)
def span_context(traceparent: str) -> SpanContext | None:
    """The span that a `traceparent` names; None for an invalid one."""
    if not TRACEPARENT.fullmatch(traceparent):
        return None
    return SpanContext(
        trace_id=int(traceparent[3:35], 16),
        span_id=int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(traceparent[53:], 16) & 1),
    )


def derived_span_id(*parts: str) -> int:
    """A span id made of what the span is about, so that another process can name the span."""
    return int.from_bytes(blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big") or 1


def trace_id(parent: str) -> str:
    """The 32 hexadecimal digits of the trace of a `traceparent`; '' for an invalid one."""
    return parent[3:35] if parent and _is_traceparent(parent) else ""


def is_sampled(parent: str) -> bool:
    """Whether the trace of a `traceparent` is recorded."""
    return len(parent) == 55 and parent.endswith(("1", "3", "5", "7", "9", "b", "d", "f"))


def recorded_trace_id(parent: str) -> str:
    """`trace_id` for display; '' for a trace that is not recorded."""
    return trace_id(parent) if is_sampled(parent) else ""


def recorded_span_id(parent: str) -> str:
    """The 16 hexadecimal digits of the span of a `traceparent`; '' for a trace that is not recorded."""
    return parent[36:52] if is_sampled(parent) and trace_id(parent) else ""


def record_log(
    name: str, parent: str, attributes: Attributes, *, level: str = "info", body: str = ""
) -> None:
    """Export a log record of the span that `parent` names, such as the verdict of a critic."""
    if tracing.logs is not None and (context := span_context(parent)) is not None:
        tracing.logs.emit(name, attributes, context, time.time_ns(), level, body)
