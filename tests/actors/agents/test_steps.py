"""Steps that need tools: sent to their agent once, and done where the tools are. The node echoes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.agents.agent_host import AgentHost
from actors.agents.process import run_agents
from actors.agents.services import AgentOptions
from actors.agents.settings import AgentsSettings
from actors.bus.bus import Message
from actors.bus.subjects import AgentAddress
from actors.embedding.embedder import Embedder
from actors.runtime.envelope import Envelope
from actors.runtime.system import ActorSystem
from actors.telemetry.content import Redactor
from actors.telemetry.tracing import tracing
from actors.tools.registry import ToolRegistry
from orchestration.messages import RunEnd, Tool, ToolResult
from tests.actors.agents.clusters import cluster, connection
from tests.actors.agents.test_runs import echo, make_run, perform
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats

SETTINGS = AgentsSettings(embedder="", drain_timeout_s=5, step_silence_s=1.5)
PASSAGE = {
    "document": "/docs/bees.md",
    "title": "Bees",
    "heading": "Honey",
    "passage": "Bees make honey in the hive.",
    "similarity": 0.9,
    "score": 0.1,
}


class Documents:
    """The knowledge base, which answers once `open` is set."""

    tool = Tool(name="knowledge", description="finds passages")

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.used = self.stopped = 0

    async def use(self, arguments: dict[str, Any]) -> ToolResult:
        self.used += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return ToolResult(text="found", data=[PASSAGE])


def having(documents: Documents) -> Callable[[Embedder | None], ToolRegistry]:
    def build(embedder: Embedder | None) -> ToolRegistry:
        tools = ToolRegistry(SETTINGS.tools)
        tools.register("research", documents)
        return tools

    return build


def requests(host: AgentHost) -> int:
    """Steps that were sent to the agents of a process."""
    return sum(endpoint["num_requests"] for endpoint in host.steps._stats()["endpoints"])


@asynccontextmanager
async def second_host(nats: RunningNats, documents: Documents) -> AsyncIterator[AgentHost]:
    """Agents of another machine, whose coordinator may take the run as well."""
    async with connection(nats.url, "second") as bus:
        options = AgentOptions(build_tools=having(documents))
        async with run_agents(bus, SETTINGS, ActorSystem(), options) as host:
            yield host


async def test_a_step_with_tools_goes_to_its_agent_once_and_its_parts_are_steps_of_the_run(
    own_nats: RunningNats,
) -> None:
    documents = Documents()
    async with cluster(own_nats.url, echo(), SETTINGS, build_tools=having(documents)) as running:
        run = make_run(running.streams, "research", "What do bees make?")
        text, ended, progress = await perform(running.streams, run)
        assert requests(running.team) == 1
    assert [(step.name, step.tool) for step in ended.steps] == [
        ("answer: knowledge", "knowledge"),
        ("answer", ""),
    ]
    assert ended.finish.usage == ended.steps[1].usage
    assert [each.step for each in progress if each.step] == list(ended.steps)
    assert "Sources:\n[1] Bees › Honey (/docs/bees.md)" in text
    assert [source["document"] for source in ended.report["sources"]] == ["/docs/bees.md"]


async def test_a_step_whose_agent_leaves_goes_on_at_another_which_does_not_repeat_what_was_done(
    own_nats: RunningNats,
) -> None:
    first, other = Documents(), Documents()
    slow = echo(speed=20.0)
    async with cluster(own_nats.url, slow, SETTINGS, build_tools=having(first)) as running:
        run = make_run(running.streams, "research", "What do bees make? " * 12)
        performing = asyncio.ensure_future(perform(running.streams, run))
        await eventually(lambda: running.node.describe().running == 1)  # the passages are found
        async with second_host(own_nats, other):
            agent = next(ref for ref in running.team.agents if ref.name == "steps of research")
            await agent.host.drain(0)
            await running.team.steps.leave()
            text, ended, _ = await performing
    assert (first.used, other.used) == (1, 0)
    assert text.count("Sources:") == 1
    assert [step.name for step in ended.steps if not step.discarded] == ["answer: knowledge", "answer"]


async def test_an_agent_that_is_silent_is_given_up_and_another_does_the_step(own_nats: RunningNats) -> None:
    async with cluster(own_nats.url, echo(), SETTINGS) as running:
        asked: list[Message] = []
        subject = AgentAddress(SETTINGS.cluster, "research").step
        async with connection(own_nats.url, "frozen") as frozen:
            listening = await frozen.subscribe(subject, asked.append, queue="agents")
            await frozen.flush()
            run = make_run(running.streams, "research", "What do bees make?")
            performing = asyncio.ensure_future(perform(running.streams, run))
            await eventually(lambda: asked)
            await listening.unsubscribe()
            async with second_host(own_nats, Documents()) as other:
                _, ended, _ = await performing
                assert requests(other) == 1
    assert [step.name for step in ended.steps] == ["answer: knowledge", "answer"]


async def test_a_caller_that_leaves_stops_the_tool_of_its_step(own_nats: RunningNats) -> None:
    documents = Documents()
    documents.open.clear()
    async with cluster(own_nats.url, echo(), SETTINGS, build_tools=having(documents)) as running:
        run = make_run(running.streams, "research")
        async with aclosing(running.streams.stream(run, Envelope.within(60))) as events:
            reading = asyncio.ensure_future(anext(events))
            await eventually(lambda: documents.used == 1)
            reading.cancel()
            await asyncio.wait([reading])
        await eventually(lambda: documents.stopped == 1)


async def test_a_tool_that_hangs_ends_in_time_for_the_answer_which_is_given_without_it(
    own_nats: RunningNats,
) -> None:
    documents = Documents()
    documents.open.clear()
    async with cluster(own_nats.url, echo(), SETTINGS, build_tools=having(documents)) as running:
        text, ended, _ = await perform(running.streams, make_run(running.streams, "research"), within_s=3)
    assert documents.stopped == 1
    assert text.startswith("No source was found")
    assert [step.error.code for step in ended.steps if step.error] == ["deadline_exceeded"]


async def test_a_step_is_done_without_tools_where_no_agent_has_any(own_nats: RunningNats) -> None:
    async with cluster(own_nats.url, echo(), SETTINGS) as running:
        _, ended, _ = await perform(running.streams, make_run(running.streams, "reasoning", "2 + 2 = 5"))
        assert requests(running.team) == 0
    assert isinstance(ended, RunEnd)
    assert [step.name for step in ended.steps] == ["answer"]


@pytest.mark.parametrize("content", [False, True])
async def test_a_search_is_a_retrieval_below_its_step_with_arguments_only_where_content_is_recorded(
    own_nats: RunningNats, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, content: bool
) -> None:
    if content:
        monkeypatch.setattr(tracing, "content", Redactor((), 1000))
    async with cluster(own_nats.url, echo(), SETTINGS, build_tools=having(Documents())) as running:
        await perform(running.streams, make_run(running.streams, "research", "What do canary bees make?"))
    by_name = {span.name: span for span in spans.get_finished_spans()}
    search, step = by_name["retrieval knowledge"], by_name["invoke_agent research"]
    assert search.parent is not None
    assert step.context is not None
    assert search.parent.span_id == step.context.span_id
    found = search.attributes or {}
    assert found["openinference.span.kind"] == "RETRIEVER"
    assert ("canary" in str(found.get("gen_ai.tool.call.arguments", ""))) == content
    assert ("gen_ai.tool.call.result" in found) == content
    assert any("canary" in span.to_json() for span in spans.get_finished_spans()) == content
    calls = [span for span in spans.get_finished_spans() if span.name.startswith("chat ")]
    assert len(calls) == 1
    assert calls[0].parent is not None
    assert calls[0].parent.span_id == step.context.span_id
