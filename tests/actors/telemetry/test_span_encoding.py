"""Span records are encoded as the SDK would encode them, and what the SDK sends is that."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc
from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind

from actors.telemetry.counted_export import Outbox, RecordExporter
from actors.telemetry.span_encoding import SpanBatch, SpanEncoder, use_encoded
from actors.telemetry.span_record import SpanRecord
from actors.telemetry.tracing import span_context

RESOURCE = Resource.create({"service.name": "orchestra", "orchestra.role": "node"})
SCOPE = InstrumentationScope("orchestra", schema_url="https://opentelemetry.io/schemas/gen-ai/0.1.0")
VALUES: Mapping[str, Any] = {
    "text": "hé \U0001f600\n",
    "empty": "",
    "yes": True,
    "no": False,
    "number": -(2**63),
    "zero": 0,
    "share": 0.25,
    "texts": ("stop", "length"),
    "numbers": [1, 2],
    "flags": (True, False),
    "nothing": (),
}


def record(
    kind: SpanKind = SpanKind.INTERNAL,
    *,
    parent: str = "cd" * 8,
    failed: bool = False,
    links: Sequence[Link] = (),
    attributes: Mapping[str, Any] = VALUES,
) -> SpanRecord:
    made = SpanRecord("chat ✓", "ab" * 16, "0" * 15 + "7", parent, kind, 1_700_000_000_000_000_001)
    made.ended_ns = made.began_ns + 5
    made.failed = failed
    made.links = links
    made.attributes.update(attributes)
    return made


def links() -> list[Link]:
    context = span_context(f"00-{'12' * 16}-{'34' * 8}-01")
    assert context is not None
    return [Link(context), Link(context, {"orchestra.attempt": 2})]


class CountingEncoder(SpanEncoder):
    """Counts the batches that it has encoded."""

    def __init__(self) -> None:
        super().__init__(RESOURCE, SCOPE)
        self.batches = 0

    def encode(self, records: Sequence[SpanRecord]) -> ExportTraceServiceRequest:
        encoded = super().encode(records)
        self.batches += 1
        return encoded


@pytest.mark.parametrize(
    "records",
    [
        [record(kind) for kind in SpanKind],
        [record(parent="")],
        [record(failed=True), record()],
        [record(links=links())],
        [record(attributes={})],
        [],
    ],
    ids=["kinds", "root", "failed", "links", "bare", "none"],
)
def test_spans_are_encoded_as_the_sdk_encodes_them(records: list[SpanRecord]) -> None:
    encoder = CountingEncoder()
    batch = SpanBatch(records, encoder)
    encoded = batch.encoded()
    if records:
        assert encoded == encode_spans(list(batch))
        assert encoded.resource_spans[0].schema_url == RESOURCE.schema_url
    assert [span.name for whole in encoded.resource_spans for span in whole.scope_spans[0].spans] == [
        each.name for each in records
    ]
    assert encoder.batches == 1


@pytest.mark.parametrize("value", [None, {"a": 1}, 2**70, "\ud800", (1, object()), object()])
def test_a_value_that_is_none_of_otlp_costs_that_attribute_at_most(value: object) -> None:
    encoder = CountingEncoder()
    batch = SpanBatch([record(attributes={"odd": value, "good": 1}), record()], encoder)
    encoded = batch.encoded()
    assert encoded == encode_spans(list(batch))
    odd, other = encoded.resource_spans[0].scope_spans[0].spans
    assert "good" in [each.key for each in odd.attributes]
    assert len(other.attributes) == len(VALUES)
    assert encoder.batches == 0


def test_a_batch_is_a_sequence_of_the_sdks_spans() -> None:
    batch = SpanBatch([record(), record(SpanKind.SERVER)], CountingEncoder())
    assert len(batch) == 2
    assert [span.kind for span in batch] == [SpanKind.INTERNAL, SpanKind.SERVER]
    assert batch[1].kind is SpanKind.SERVER
    assert [span.kind for span in batch[1:]] == [SpanKind.SERVER]


async def test_the_sdk_sends_over_http_what_was_encoded_here() -> None:
    got: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        got.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    encoder, records = CountingEncoder(), [record(), record(failed=True)]
    use_encoded(over_http)
    use_encoded(over_http)
    async with TestServer(app, host="127.0.0.1") as server:
        sdk = over_http.OTLPSpanExporter(endpoint=str(server.make_url("/v1/traces")), timeout=10)
        exporter = RecordExporter(sdk, encoder, Outbox("traces", 10))
        assert await asyncio.to_thread(exporter.export, records) is SpanExportResult.SUCCESS
        exporter.shutdown()
    assert ExportTraceServiceRequest.FromString(got[0]) == encode_spans(list(SpanBatch(records, encoder)))
    assert encoder.batches == 1


class GrpcCollector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.got: list[ExportTraceServiceRequest] = []

    def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:
        self.got.append(request)
        return ExportTraceServiceResponse()


async def test_the_sdk_sends_over_grpc_what_was_encoded_here() -> None:
    made, encoder, records = GrpcCollector(), CountingEncoder(), [record(), record(failed=True)]
    use_encoded(over_grpc)
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(made, server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            sdk = over_grpc.OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True, timeout=10)
            exporter = RecordExporter(sdk, encoder, Outbox("traces", 10))
            assert await asyncio.to_thread(exporter.export, records) is SpanExportResult.SUCCESS
            exporter.shutdown()
        finally:
            server.stop(0).wait()
    assert made.got == [encode_spans(list(SpanBatch(records, encoder)))]
    assert encoder.batches == 1
