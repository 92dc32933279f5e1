"""Exports: what a collector gets, and what one costs that is dead, slow, or lies."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from aiohttp import web
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from prometheus_client import REGISTRY

from actors.telemetry.event_log import EventLog
from actors.telemetry.identity import ProcessIdentity
from actors.telemetry.otlp import Telemetry, start_telemetry
from actors.telemetry.settings import TelemetrySettings
from actors.telemetry.tracing import record_log, recorded_span_id, start_span, trace_id, tracing
from orchestration.log_events import LogLevel
from tests.fixtures.eventually import eventually
from tests.fixtures.receiver import attributes, receiver

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
IDENTITY = ProcessIdentity(role="node", id="node-here-1", host="here", pid=1, version="1.2.3")


@pytest.fixture(autouse=True)
def off() -> Iterator[None]:
    yield
    assert tracing.tracer is None


@asynccontextmanager
async def collector(answer: Answer) -> AsyncIterator[str]:
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def traced(url: str, **settings: Any) -> AsyncIterator[Telemetry]:
    defaults = {"export_interval_s": 0.02, "export_timeout_s": 0.3}
    made = start_telemetry(TelemetrySettings(otlp_endpoint=url, **defaults | settings), IDENTITY, "n-1")
    assert made is not None
    try:
        yield made
    finally:
        await asyncio.to_thread(made.stop)


def dropped(signal: str, reason: str) -> float:
    labels = {"signal": signal, "reason": reason}
    return REGISTRY.get_sample_value("orchestra_telemetry_dropped_total", labels) or 0


async def test_a_process_says_who_it_is() -> None:
    got: list[trace_service_pb2.ExportTraceServiceRequest] = []

    async def take(request: web.Request) -> web.Response:
        if request.path == "/v1/traces":
            got.append(trace_service_pb2.ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response()

    async with collector(take) as url, traced(url):
        start_span("x", "").end()
        await eventually(lambda: got)
    (resource,) = got[0].resource_spans
    found = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert {
        "service.name": "orchestra",
        "service.version": "1.2.3",
        "service.instance.id": "node-here-1",
        "host.name": "here",
        "orchestra.role": "node",
        "orchestra.node": "n-1",
    }.items() <= found.items()
    (scope,) = resource.scope_spans
    assert scope.schema_url.endswith("/0.1.0")


async def test_an_event_of_a_recorded_trace_is_a_log_record_of_its_span() -> None:
    async with receiver() as told:
        telemetry = told.trace(sample_ratio=1.0)
        log = EventLog()
        log.add_sink(telemetry.logs.record)
        with start_span("x", "") as span:
            trace = span.traceparent
            fields: dict[str, Any] = {"trace": trace_id(trace), "span": recorded_span_id(trace), "run": "r.1"}
            log.record("run.ended", level=LogLevel.WARNING, message="it is over", data={"n": 1}, **fields)
            log.record("node.joined")  # of no trace
            record_log("gen_ai.evaluation.result", trace, {"gen_ai.evaluation.name": "critic"})
        await told.flush()
        await eventually(lambda: len(told.logs) == 2)
        event, verdict = told.logs
        assert (event.event_name, event.severity_text, event.body.string_value) == (
            "run.ended",
            "WARNING",
            "it is over",
        )
        assert attributes(event) == {"orchestra.run": "r.1", "orchestra.data": '{"n": 1}'}
        assert (verdict.event_name, attributes(verdict)) == (
            "gen_ai.evaluation.result",
            {"gen_ai.evaluation.name": "critic"},
        )
        for each in told.logs:
            assert (each.trace_id.hex(), each.span_id.hex()) == (trace_id(trace), recorded_span_id(trace))


async def never(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


async def refuses(request: web.Request) -> web.Response:
    return web.Response(status=400, text="<html>no</html>")


async def lies(request: web.Request) -> web.Response:
    return web.Response(status=503, body=b"\xff" * 100, headers={"Retry-After": "3600"})


@pytest.mark.parametrize("answer", [None, never, refuses, lies])
async def test_a_collector_that_takes_nothing_costs_counters_and_one_line_each(
    answer: Answer | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def run(url: str) -> None:
        before = {signal: dropped(signal, "export_failed") for signal in ("traces", "logs")}
        async with traced(url):
            for _ in range(20):
                with start_span("x", "") as span:
                    record_log("y", span.traceparent, {})
                await asyncio.sleep(0)

            def counted() -> bool:
                return all(dropped(signal, "export_failed") > before[signal] for signal in before)

            await eventually(counted)

    async with asyncio.timeout(30):
        if answer is None:
            await run("http://127.0.0.1:1")
        else:
            async with collector(answer) as url:
                await run(url)
    lines = [record for record in caplog.records if record.name.startswith(("actors", "opentelemetry"))]
    assert len(lines) <= 2  # traces and logs
    assert all(record.exc_info is None for record in lines)


async def test_what_a_collector_rejects_with_a_200_is_not_counted_as_exported() -> None:
    """`partial_success` of OTLP."""

    async def rejects(request: web.Request) -> web.Response:
        answer = trace_service_pb2.ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = 3
        answer.partial_success.error_message = "too old"
        logs = logs_service_pb2.ExportLogsServiceResponse()
        logs.partial_success.rejected_log_records = 1
        chosen = answer if request.path == "/v1/traces" else logs
        return web.Response(body=chosen.SerializeToString(), content_type="application/x-protobuf")

    signals = ("traces", "logs")
    before = {signal: (exported(signal), dropped(signal, "rejected")) for signal in signals}
    async with collector(rejects) as url, traced(url, export_interval_s=30) as made:
        for _ in range(4):
            with start_span("x", "") as span:
                record_log("y", span.traceparent, {})
        await asyncio.to_thread(made.flush)
    counted = {signal: (exported(signal), dropped(signal, "rejected")) for signal in signals}
    found = {
        each: tuple(now - was for now, was in zip(counted[each], before[each], strict=True))
        for each in signals
    }
    assert found == {"traces": (1, 3), "logs": (3, 1)}


def exported(signal: str) -> float:
    return REGISTRY.get_sample_value("orchestra_telemetry_exported_total", {"signal": signal}) or 0


async def test_what_does_not_fit_into_the_queue_is_counted_and_the_process_ends() -> None:
    before = dropped("traces", "queue_full")
    async with asyncio.timeout(30), collector(never) as url, traced(url, export_queue=5):
        for _ in range(50):
            start_span("x", "").end()
        assert dropped("traces", "queue_full") >= before + 40


async def test_a_collector_that_comes_back_gets_spans_again() -> None:
    got: list[bytes] = []
    is_up = False

    async def sometimes(request: web.Request) -> web.Response:
        body = await request.read()
        if is_up:
            got.append(body)
        return web.Response(status=200 if is_up else 400)

    async with collector(sometimes) as url, traced(url):
        before = dropped("traces", "export_failed")
        start_span("lost", "").end()
        await eventually(lambda: dropped("traces", "export_failed") > before)
        is_up = True
        start_span("kept", "").end()
        await eventually(lambda: got)
        assert b"kept" in got[0]


class Collector(trace_service_pb2_grpc.TraceServiceServicer, logs_service_pb2_grpc.LogsServiceServicer):
    """One Export for both services: the names of the requests differ."""

    def __init__(self) -> None:
        self.got: dict[str, Any] = {}
        self.complete = threading.Event()

    def Export(self, request: Any, context: Any) -> Any:
        self.got[type(request).__name__] = request
        if len(self.got) == 2:
            self.complete.set()
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            return trace_service_pb2.ExportTraceServiceResponse()
        return logs_service_pb2.ExportLogsServiceResponse()


async def test_spans_and_logs_go_out_over_grpc() -> None:
    made = Collector()
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(made, server)  # type: ignore[no-untyped-call]
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(made, server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            async with traced(f"http://127.0.0.1:{port}", otlp_protocol="grpc", export_timeout_s=5):
                with start_span("x", "") as span:
                    record_log("y", span.traceparent, {})
                assert await asyncio.to_thread(made.complete.wait, 10)
        finally:
            server.stop(0).wait()
    spans = made.got["ExportTraceServiceRequest"].resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == ["x"]
