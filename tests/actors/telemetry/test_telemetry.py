from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from actors.runtime.actor import Actor
from actors.runtime.envelope import Envelope, current_envelope
from actors.runtime.system import ActorSystem
from actors.telemetry.telemetry import TelemetrySettings, start_tracing, trace_id, traceparent
from orchestration.errors import InternalError
from tests.actors.runtime.greeter import Crash, Greet, Greeter, Wait
from tests.fixtures.ask import ask

PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


async def test_every_message_has_a_span_under_the_trace_it_came_with(spans: InMemorySpanExporter) -> None:
    class Passer(Actor):
        async def on_wait(self, message: Wait) -> str:
            await ask(greeter, Greet(name="x"), current_envelope.get().with_trace(traceparent()))
            return traceparent()

    system = ActorSystem()
    greeter = await system.spawn(Greeter, Greeter)
    passer = await system.spawn(Passer, Passer)
    inside = await ask(passer, Wait(), Envelope(trace=PARENT))
    inner, outer = spans.get_finished_spans()
    assert (inner.name, outer.name) == ("Greeter Greet", "Passer Wait")
    assert outer.parent is not None
    assert f"{outer.parent.span_id:016x}" == PARENT.split("-")[2]
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    assert trace_id(inside) == trace_id(PARENT)


async def test_the_span_of_a_crash_says_so(spans: InMemorySpanExporter) -> None:
    ref = await ActorSystem().spawn(Greeter, Greeter)
    with pytest.raises(InternalError):
        await ask(ref, Crash())
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "internal_error"


async def test_every_message_is_counted_by_its_outcome() -> None:
    class Counted(Greeter):
        """Its name is its label."""

    def count(message: str, outcome: str) -> float:
        labels = {"actor": "Counted", "message": message, "outcome": outcome}
        return REGISTRY.get_sample_value("orchestra_actor_messages_total", labels) or 0

    ref = await ActorSystem().spawn(Counted, Counted)
    for _ in range(3):
        await ask(ref, Greet(name="x"))
    with pytest.raises(InternalError):
        await ask(ref, Crash())
    assert (count("Greet", "ok"), count("Crash", "internal_error")) == (3, 1)


def test_without_an_endpoint_tracing_stays_off() -> None:
    assert start_tracing(TelemetrySettings()) is None
    assert traceparent(PARENT) == PARENT
    assert trace_id("rubbish") == ""
