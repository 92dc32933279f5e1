"""Agents that leave, lose their server, or are watched: nothing is lost that need not be."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.agents.process import run_agents
from actors.agents.settings import AgentsSettings
from actors.backends.echo import EchoBackend, EchoSettings
from actors.runtime.envelope import Envelope
from actors.runtime.system import ActorSystem
from actors.streams.client import StreamClient
from orchestration.errors import OrchestraError
from orchestration.messages import ChatMessage, Run, RunEnd, TextDelta
from tests.actors.agents.clusters import cluster, connection
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats, start_nats

SETTINGS = AgentsSettings(drain_timeout_s=5)


def echo(**settings: object) -> EchoBackend:
    return EchoBackend(EchoSettings.model_validate({"repeat": False} | settings))


async def end_of(streams: StreamClient, pattern: str, envelope: Envelope) -> RunEnd:
    messages = (ChatMessage(role="user", content="Why is the sky blue?"),)
    run = Run(id=streams.new_id(), pattern=pattern, messages=messages)
    async with aclosing(streams.stream(run, envelope)) as events:
        async for event in events:
            if isinstance(event, RunEnd):
                return event
    raise AssertionError("the stream ended without an end")


async def test_a_replica_that_leaves_costs_no_run_a_step(nats: RunningNats) -> None:
    async with cluster(nats.url, echo(first_token_s=0.02), SETTINGS) as running:
        async with connection(nats.url, "leaving") as bus:
            async with run_agents(bus, SETTINGS, ActorSystem()) as leaving:
                ends = [
                    asyncio.ensure_future(end_of(running.streams, "maestro", Envelope.within(60)))
                    for _ in range(16)
                ]
                await eventually(lambda: bool(leaving.run_consumer and leaving.run_consumer.open))
            for ended in await asyncio.gather(*ends):
                assert not any(step.error for step in ended.steps)
                assert ended.finish.reason == "stop"


async def test_a_step_without_tools_needs_no_agent_so_one_that_drains_costs_no_run(nats: RunningNats) -> None:
    async with cluster(nats.url, echo(), SETTINGS) as running:
        for agent in running.team.agents:
            await agent.host.drain(1)
        ends = await asyncio.gather(
            *(end_of(running.streams, "single", Envelope.within(60)) for _ in range(60))
        )
        assert all(end.finish.reason == "stop" for end in ends)


async def test_agents_work_again_when_the_server_is_back(tmp_path: Path) -> None:
    server = start_nats(tmp_path)
    try:
        async with cluster(server.url, echo(speed=20.0), SETTINGS) as running:
            messages = (ChatMessage(role="user", content="word " * 200),)
            run = Run(id=running.streams.new_id(), pattern="single", messages=messages)
            async with aclosing(running.streams.stream(run, Envelope.within(30))) as events:
                while not isinstance(await anext(events), TextDelta):
                    pass
                server.kill()
                with pytest.raises(OrchestraError) as caught:
                    _ = [event async for event in events]
            assert caught.value.status == 503
            server.restart()
            ended: RunEnd | None = None
            async with asyncio.timeout(30):
                while ended is None:
                    try:
                        ended = await end_of(running.streams, "maestro", Envelope.within(60))
                    except OrchestraError:
                        await asyncio.sleep(0.05)
            assert [step.name for step in ended.steps][-1] == "synthesis"
    finally:
        server.stop()


def ancestors(span: ReadableSpan, by_id: dict[int, ReadableSpan]) -> list[str]:
    names: list[str] = []
    while span.parent is not None and span.parent.span_id in by_id:
        span = by_id[span.parent.span_id]
        names.append(span.name)
    return names


async def test_every_step_is_an_invoke_agent_span_under_its_run(
    nats: RunningNats, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    trace = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
    async with cluster(nats.url, echo(), SETTINGS) as running:
        ended = await end_of(running.streams, "maestro", Envelope.within(60, trace=trace))
        await eventually(lambda: any(s.name == "invoke_workflow maestro" for s in spans.get_finished_spans()))
    assert ended.trace_id == "c" * 32
    finished = [
        s for s in spans.get_finished_spans() if s.context and s.context.trace_id == int("c" * 32, 16)
    ]
    by_id = {s.context.span_id: s for s in finished if s.context}
    steps = [s for s in finished if s.attributes and "orchestra.step" in s.attributes]
    assert [s.attributes["orchestra.step"] for s in steps if s.attributes] == [
        step.name for step in ended.steps
    ]
    for span in steps:
        assert span.attributes is not None
        plans = str(span.attributes["orchestra.step"]).startswith("plan")
        operation = "plan" if plans else "invoke_agent"
        assert span.name == f"{operation} {span.attributes['gen_ai.agent.name']!s}"
        assert span.attributes["gen_ai.operation.name"] == operation
        assert ancestors(span, by_id)[0] == "invoke_workflow maestro"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_leaving_in_the_middle_closes_the_spans_in_good_order(
    nats: RunningNats, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(nats.url, echo(speed=50.0), SETTINGS) as running:
        messages = (ChatMessage(role="user", content="word " * 500),)
        run = Run(id=running.streams.new_id(), pattern="single", messages=messages)
        async with aclosing(running.streams.stream(run, Envelope.within(30))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        await eventually(lambda: any(s.name == "invoke_workflow single" for s in spans.get_finished_spans()))
    names = [span.name for span in spans.get_finished_spans()]
    assert names.count("invoke_agent coordinator") == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
