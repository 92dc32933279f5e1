"""Tracing as processes start it."""

from __future__ import annotations

import pytest

from actors.bus.bus import Bus, BusSettings
from actors.bus.subjects import TRACES_KEPT_SUBJECT
from actors.installation.optional_imports import ExtraMissing, without_module
from actors.launch.tracing import traced
from actors.telemetry.identity import ProcessIdentity
from actors.telemetry.settings import TelemetrySettings
from actors.telemetry.tracing import start_span, tracing
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.receiver import receiver

IDENTITY = ProcessIdentity.of_this_process("node")


async def test_grpc_without_its_package_says_how_to_install_it(nats_server: RunningNats) -> None:
    settings = TelemetrySettings(otlp_endpoint="http://127.0.0.1:1", otlp_protocol="grpc")
    bus = await Bus.connect(BusSettings(url=nats_server.url), name="tests")
    try:
        with (
            without_module("opentelemetry.exporter.otlp.proto.grpc._log_exporter"),
            without_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter"),
            without_module("opentelemetry.exporter.otlp.proto.grpc"),
            pytest.raises(ExtraMissing, match=r"pip install 'orchestra-llm\[otlp-grpc\]'"),
        ):
            async with traced(bus, settings, IDENTITY):
                pass
    finally:
        await bus.close()
    assert tracing.tracer is None


async def test_a_process_exports_what_another_has_decided_to_keep(nats_server: RunningNats) -> None:
    bus = await Bus.connect(BusSettings(url=nats_server.url), name="tests")
    async with receiver() as told:
        settings = TelemetrySettings(otlp_endpoint=told.url, export_interval_s=0.05)
        async with traced(bus, settings, IDENTITY):
            start_span("kept", f"00-{'ab' * 16}-{'cd' * 8}-00").end()
            start_span("left out", f"00-{'cd' * 16}-{'cd' * 8}-00").end()
            await bus.publish(TRACES_KEPT_SUBJECT, b"rubbish " + b"ab" * 16)
            await eventually(lambda: told.spans)
        assert [span.name for span in told.spans] == ["kept"]
    await bus.close()
