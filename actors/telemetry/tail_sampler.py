"""Keeps errors and slow requests that the head of the sampling left out.

Each process holds the spans of such traces for a while. The process in which the request ends decides, and
tells the others by `on_keep`; they call `keep`. Spans that come later are exported too.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import SpanContext, SpanKind

from actors.telemetry.metrics import DROPPED, TAIL
from actors.telemetry.settings import TelemetrySettings
from actors.telemetry.span_record import SpanRecord

MAX_KEPT = 10_000
"""Traces of which late spans are still exported; the oldest are forgotten."""
_TRACE_ID = re.compile("[0-9a-f]{32}")
_PRODUCER, _SERVER, _CONSUMER = SpanKind.PRODUCER, SpanKind.SERVER, SpanKind.CONSUMER
# A member of an enumeration costs more to look up than a global.


@dataclass(slots=True)
class HeldTrace:
    """What this process has of one trace that is not sampled."""

    since: float
    items: list[Any] = field(default_factory=list)
    """Span records and log records."""
    failed: bool = False
    """Whether a span of it has failed."""
    goes_on: bool = False
    """Whether it was handed to a queue, so that its work begins after the request has ended."""


class TailSampler:
    """Holds ended spans that are not sampled. `export` takes those that are kept after all."""

    def __init__(self, settings: TelemetrySettings, export: Callable[[SpanRecord], None]) -> None:
        self.settings = settings
        self.export = export
        self.send_log: Callable[[Any], None] = lambda record: None
        self.on_keep: Callable[[str], None] = lambda trace: None
        """Called with the 32 hexadecimal digits of a trace that this process has decided to keep."""
        self.size = 0
        """Spans and log records that are held."""
        self._held: OrderedDict[str, HeldTrace] = OrderedDict()
        self._kept: OrderedDict[str, None] = OrderedDict()

    def on_end(self, span: SpanRecord) -> None:
        """Hold an ended span of a trace that is not sampled, or export it if the trace is kept."""
        trace, kind = span.trace, span.kind
        held = self._held.get(trace)
        if held is None:
            if trace in self._kept:
                self._export(span)
                return
            held = self._hold(trace)
        held.items.append(span)
        self.size += 1
        if span.failed:
            held.failed = True
        if kind is _PRODUCER:
            held.goes_on = True
        if not span.parent or kind is _SERVER or kind is _CONSUMER:
            self._decide(trace, held, span)
        if self.size > self.settings.tail_spans:
            self._shrink()

    def hold_log(self, context: SpanContext, record: Any) -> bool:
        """Keep a log record of a trace of which this process holds spans; False if it may be exported now."""
        held = None if context.trace_flags.sampled else self._held.get(f"{context.trace_id:032x}")
        if held is None:
            return False
        held.items.append(record)
        self.size += 1
        if self.size > self.settings.tail_spans:
            self._shrink()
        return True

    def knows(self, trace: str) -> bool:
        """Whether this process holds spans of a trace, or the trace is kept."""
        return trace in self._kept or trace in self._held

    def keep(self, trace: str) -> None:
        """Export a trace, because another process has decided so."""
        if _TRACE_ID.fullmatch(trace):
            self._keep(trace)

    def _decide(self, trace: str, held: HeldTrace, root: SpanRecord) -> None:
        seconds = (root.ended_ns - root.began_ns) / 1e9
        slow = 0 < self.settings.slow_s <= seconds
        if slow or held.failed:
            TAIL.labels("slow" if slow else "failed").inc()
            self._keep(trace)
            self.on_keep(trace)
        elif not held.goes_on:
            self._forget(trace)

    def _keep(self, trace: str) -> None:
        self._kept[trace] = None
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        held = self._forget(trace)
        if held is not None:
            for item in held.items:
                if isinstance(item, SpanRecord):
                    self._export(item)
                else:
                    self.send_log(item)

    def _export(self, span: SpanRecord) -> None:
        span.sampled = True
        self.export(span)

    def _hold(self, trace: str) -> HeldTrace:
        self._shrink()
        held = self._held[trace] = HeldTrace(time.monotonic())
        return held

    def _forget(self, trace: str) -> HeldTrace | None:
        held = self._held.pop(trace, None)
        if held is not None:
            self.size -= len(held.items)
        return held

    def _shrink(self) -> None:
        """Forget the oldest traces: those beyond `tail_spans`, which is counted, and those older than
        `tail_s`."""
        too_old = time.monotonic() - self.settings.tail_s
        while self._held:
            trace, held = next(iter(self._held.items()))
            full = self.size > self.settings.tail_spans
            if not full and held.since > too_old:
                return
            self._forget(trace)
            if full:
                DROPPED.labels("traces", "tail_full").inc(len(held.items))
