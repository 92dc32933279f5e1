"""Sampling and content that are changed while a process traces."""

from __future__ import annotations

from actors.telemetry.settings import TelemetrySettings
from actors.telemetry.tracing import is_sampled, start_span, tracing
from tests.fixtures.receiver import receiver


def sampled() -> bool:
    with start_span("x", "") as span:
        return is_sampled(span.traceparent)


async def test_sampling_and_content_are_switched_while_it_runs() -> None:
    async with receiver() as at:
        telemetry = at.trace(slow_s=0)
        assert sampled()
        assert tracing.content is None
        left_out = TelemetrySettings(otlp_endpoint=at.url, sample_ratio=0, slow_s=0, content=True)
        telemetry.update_settings(left_out)
        assert not sampled()
        with start_span("x", "") as span:
            assert not span.recording
        assert tracing.content is not None
        telemetry.update_settings(left_out.model_copy(update={"slow_s": 1.0, "content": False}))
        with start_span("x", "") as span:
            assert span.recording, "it may become slow"
            assert not is_sampled(span.traceparent)
        assert tracing.content is None
