"""Spans: what they say of errors, when they end, and what they cost while tracing is off."""

from __future__ import annotations

import asyncio
import time

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from actors.telemetry.settings import TelemetrySettings
from actors.telemetry.tracing import (
    NO_SPAN,
    Scope,
    current_scope,
    is_sampled,
    recorded_trace_id,
    start_span,
    trace_id,
)
from orchestration.errors import BackendFailed, Cancelled, InvalidRequest, OrchestraError

PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def test_without_tracing_a_span_is_nothing() -> None:
    span = start_span("x", PARENT)
    assert span is NO_SPAN
    assert (span.recording, span.traceparent) == (False, "")


def test_a_span_is_below_the_traceparent_that_it_is_given(spans: InMemorySpanExporter) -> None:
    with start_span("outer", PARENT) as outer, start_span("inner", outer.traceparent):
        pass
    inner, above = spans.get_finished_spans()
    assert (inner.name, above.name) == ("inner", "outer")
    assert inner.parent is not None
    assert above.context is not None
    assert inner.parent.span_id == above.context.span_id
    assert above.parent is not None
    assert f"{above.parent.span_id:016x}" == PARENT.split("-")[2]
    assert trace_id(outer.traceparent) == trace_id(PARENT)


def test_what_is_below_a_trace_that_is_not_sampled_is_not_recorded(spans: InMemorySpanExporter) -> None:
    left_out = PARENT[:-1] + "0"
    with start_span("x", left_out) as span:
        assert span.traceparent == left_out
        assert not is_sampled(span.traceparent)
    assert spans.get_finished_spans() == ()
    assert (recorded_trace_id(left_out), trace_id("rubbish")) == ("", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [(BackendFailed("key sk-abc"), "backend_failed"), (ValueError("key sk-abc"), "ValueError")],
)
def test_an_error_is_told_by_its_code_and_not_by_its_text(
    spans: InMemorySpanExporter, error: Exception, code: str
) -> None:
    with pytest.raises(type(error)), start_span("x", ""):
        raise error
    (span,) = spans.get_finished_spans()
    assert (span.attributes or {})["error.type"] == code
    assert span.status.status_code is StatusCode.ERROR
    assert "sk-abc" not in span.to_json()
    assert span.events == ()


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Cancelled("the caller left")])
def test_a_caller_that_leaves_is_no_error(spans: InMemorySpanExporter, error: BaseException) -> None:
    start_span("x", "").end(error)
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes == {"orchestra.outcome": "cancelled"}


@pytest.mark.parametrize(("error", "is_failure"), [(InvalidRequest("x"), False), (BackendFailed("x"), True)])
def test_a_server_does_not_fail_by_what_its_caller_did_wrong(
    spans: InMemorySpanExporter, error: OrchestraError, is_failure: bool
) -> None:
    span = start_span("x", "")
    span.fail(error, server=True)
    span.end()
    (found,) = spans.get_finished_spans()
    assert (found.status.status_code is StatusCode.ERROR) == is_failure


def test_a_span_ends_no_later_than_its_scope(spans: InMemorySpanExporter) -> None:
    outer = Scope()
    inner = Scope(within=outer)
    token = current_scope.set(inner)
    try:
        span = start_span("x", "")
    finally:
        current_scope.reset(token)
    over_ns = time.time_ns()
    outer.close(over_ns)
    inner.close()
    span.end()
    span.end()
    (found,) = spans.get_finished_spans()
    assert found.end_time == max(over_ns, found.start_time or 0)


def test_an_abandoned_span_is_never_exported(spans: InMemorySpanExporter) -> None:
    span = start_span("x", "")
    span.abandon()
    span.end()
    assert spans.get_finished_spans() == ()


def test_a_pattern_of_redact_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\[' is not a regular expression"):
        TelemetrySettings(redact=("[",))
