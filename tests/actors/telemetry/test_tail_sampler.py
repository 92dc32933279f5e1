"""Errors and slow requests are kept though they were left out at first, in every process that has spans of
them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.trace import SpanKind
from prometheus_client import REGISTRY

from actors.telemetry.settings import TelemetrySettings
from actors.telemetry.span_record import SpanRecord
from actors.telemetry.tail_sampler import TailSampler
from actors.telemetry.tracing import Tracer, is_sampled, span_context, start_span, trace_id, tracing
from orchestration.errors import BackendFailed, InvalidRequest

SLOW_NS = 2_000_000_000


class Process:
    """A process that traces nothing of its own accord. `exported` are the names of the spans that left it."""

    def __init__(self, **settings: Any) -> None:
        self.exported: list[SpanRecord] = []
        self.told: list[str] = []
        self.tail = TailSampler(TelemetrySettings(slow_s=1, **settings), self.exported.append)
        self.tail.on_keep = self.told.append
        self.tracer = Tracer(self.tail.on_end, 0.0)

    def enter(self) -> None:
        tracing.tracer, tracing.keeps_unsampled = self.tracer, True

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.exported]


@pytest.fixture(autouse=True)
def off() -> Iterator[None]:
    yield
    tracing.tracer, tracing.keeps_unsampled = None, False


def request(process: Process, error: Exception | None = None, *, slow: bool = False) -> str:
    """A request with one span below it; returns its traceparent."""
    process.enter()
    root = start_span("root", "", kind=SpanKind.SERVER)
    start_span("child", root.traceparent).end(error)
    if error is not None:
        root.fail(error, server=True)
    root.end(at_ns=time.time_ns() + (SLOW_NS if slow else 0))
    assert not is_sampled(root.traceparent)
    return root.traceparent


def test_a_request_that_ends_well_in_time_is_forgotten() -> None:
    process = Process()
    request(process)
    assert (process.names, process.told, process.tail.size) == ([], [], 0)


@pytest.mark.parametrize(("error", "slow"), [(BackendFailed("x"), False), (None, True)])
def test_a_request_that_fails_or_is_slow_is_kept_and_the_others_are_told(
    error: Exception | None, slow: bool
) -> None:
    process = Process()
    trace = request(process, error, slow=slow)
    assert process.names == ["child", "root"]
    assert process.told == [trace_id(trace)]
    assert all(span.sampled for span in process.exported)


def test_another_process_exports_what_it_has_and_what_comes_late() -> None:
    process = Process()
    process.enter()
    parent = f"00-{'ab' * 16}-{'cd' * 8}-00"
    start_span("early", parent).end()
    assert process.names == []
    process.tail.keep("rubbish")
    process.tail.keep("ab" * 16)
    start_span("late", parent).end()
    assert process.names == ["early", "late"]
    assert process.told == []


def test_what_goes_on_after_its_request_is_held_until_its_work_has_ended() -> None:
    gateway, coordinator = Process(), Process()
    gateway.enter()
    root = start_span("root", "", kind=SpanKind.SERVER)
    sending = start_span("send", root.traceparent, kind=SpanKind.PRODUCER)
    sending.end()
    root.end()
    assert gateway.names == []
    coordinator.enter()
    start_span("job", sending.traceparent, kind=SpanKind.CONSUMER).end(BackendFailed("x"))
    (trace,) = coordinator.told
    gateway.tail.keep(trace)
    assert (gateway.names, coordinator.names) == (["send", "root"], ["job"])


def test_a_failure_below_keeps_a_request_that_ends_well_and_one_of_the_callers_own_does_not() -> None:
    process = Process()
    process.enter()
    root = start_span("moved", "", kind=SpanKind.SERVER)
    start_span("attempt", root.traceparent).end(BackendFailed("x"))
    root.end()
    assert process.names == ["attempt", "moved"]
    wrong = start_span("wrong", "", kind=SpanKind.SERVER)
    wrong.fail(InvalidRequest("x"), server=True)
    wrong.end()
    assert "wrong" not in process.names


def test_spans_beyond_the_limit_are_dropped_oldest_first_and_counted() -> None:
    def dropped() -> float:
        labels = {"signal": "traces", "reason": "tail_full"}
        return REGISTRY.get_sample_value("orchestra_telemetry_dropped_total", labels) or 0

    process, before = Process(tail_spans=10), dropped()
    process.enter()
    parents = [f"00-{number:032x}-{'cd' * 8}-00" for number in range(1, 31)]
    for parent in parents:
        start_span("x", parent).end()
    assert process.tail.size == 10
    assert dropped() == before + 20
    process.tail.keep(trace_id(parents[0]))
    assert process.names == []
    process.tail.keep(trace_id(parents[-1]))
    assert process.names == ["x"]


def test_spans_that_nobody_asked_for_in_time_are_forgotten() -> None:
    process = Process(tail_s=1e-9)
    process.enter()
    for number in range(1, 31):
        start_span("x", f"00-{number:032x}-{'cd' * 8}-00").end()
    assert process.tail.size <= 1


def test_a_log_record_waits_with_its_trace() -> None:
    process = Process()
    records: list[Any] = []
    process.tail.send_log = records.append
    process.enter()
    root = start_span("root", "", kind=SpanKind.SERVER)
    start_span("child", root.traceparent).end(BackendFailed("x"))
    context = span_context(root.traceparent)
    assert context is not None
    assert process.tail.hold_log(context, "a record")
    assert process.tail.knows(trace_id(root.traceparent))
    assert records == []
    root.end()
    assert records == ["a record"]
    assert not process.tail.hold_log(context, "later")
