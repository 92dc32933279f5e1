"""The spans of a generation on its node."""

from __future__ import annotations

import time

from opentelemetry.util.types import AttributeValue

from actors.runtime.envelope import current_envelope
from actors.telemetry import conventions as names
from actors.telemetry.tracing import OpenSpan, start_span
from orchestration.messages import Generation

PHASES_FROM_S = 0.01
"""Duration in seconds from which on prefill and decode have spans of their own."""


def start_generation_span(generation: Generation, node: str, backend: str) -> OpenSpan:
    """The span of the generation on this node; what the backend calls is below it."""
    envelope = current_envelope.get()
    attributes: dict[str, AttributeValue] = {
        names.NODE: node,
        names.BACKEND: backend,
        names.SPAN_KIND: names.CHAIN,
        names.ATTEMPT: envelope.attempt,
    }
    span = start_span(f"generate {generation.model}", envelope.trace, attributes)
    if span.traceparent:
        current_envelope.set(envelope.with_trace(span.traceparent))
    return span


def record_phases(span: OpenSpan, began: float, first: float, pieces: int) -> None:
    """Record prefill and decode below the span of a generation, once both are over: a node that dies between
    would leave one without its parent. `began` and `first` are of the monotonic clock. A shorter generation
    than `PHASES_FROM_S` has no phases that anyone would look for."""
    now, now_ns = time.perf_counter(), time.time_ns()
    if now - began < PHASES_FROM_S:
        return
    began_ns = now_ns - int((now - began) * 1e9)
    first_ns = now_ns - int((now - first) * 1e9)
    start_span("prefill", span.traceparent, began_ns=began_ns).end(at_ns=first_ns)
    if pieces > 1:
        start_span("decode", span.traceparent, began_ns=first_ns).end(at_ns=now_ns)
