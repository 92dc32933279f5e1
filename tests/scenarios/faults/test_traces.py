"""The trace of a request over processes of which one is killed: still one whole tree at a real receiver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fixtures.eventually import eventually
from tests.fixtures.receiver import Receiver, Tree, attributes, failed, receiver
from tests.scenarios.faults.process_cluster import ProcessCluster

CHAT = "/v1/chat/completions"
WORDS = [{"role": "user", "content": "one two three four five six seven eight nine ten " * 4}]


@pytest.fixture
async def told(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """A receiver to which every process that the test starts traces."""
    async with receiver() as made:
        monkeypatch.setenv("ORCHESTRA_TELEMETRY__OTLP_ENDPOINT", made.url)
        monkeypatch.setenv("ORCHESTRA_TELEMETRY__EXPORT_INTERVAL_S", "0.1")
        yield made


@pytest.fixture
async def started(told: Receiver, processes: ProcessCluster) -> ProcessCluster:
    """A gateway, a dispatcher, one coordinator and two nodes, each a process."""
    await asyncio.gather(
        processes.gateway("gateway"),
        processes.start("dispatcher", "dispatcher"),
        processes.start("agents", "agents"),
        processes.node("a"),
        processes.node("b"),
    )
    await processes.ready()
    return processes


async def ask(cluster: ProcessCluster, path: str = CHAT, **body: Any) -> dict[str, Any]:
    url = cluster.gateways[0] + path
    body = {"model": "echo", "messages": WORDS, "max_tokens": 80} | body
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        text = await answer.text()
        assert answer.status in (200, 202), text
    if not body.get("stream"):
        found: dict[str, Any] = json.loads(text)
        return found
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert not any("error" in chunk for chunk in chunks), chunks[-1]
    usage = next(chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage"))
    trace = next(each["orchestra"] for each in reversed(chunks) if each.get("orchestra"))["trace_id"]
    return {"usage": usage, "orchestra": {"trace_id": trace}}


async def busy_node(cluster: ProcessCluster) -> str:
    """A node that has an answer under way."""
    found: str = await eventually(
        lambda: next((name for name, node in cluster.registry.nodes.items() if node.running), ""), within_s=30
    )
    return found


def must_be_one_story(tree: Tree, answer: dict[str, Any]) -> None:
    """One root, tokens that sum to the answer's, and an attempt that was lost and one that ended well."""
    (root,) = tree.roots
    assert root.parent_span_id == b""
    usage = answer["usage"]
    assert tree.tokens() == (usage["prompt_tokens"], usage["completion_tokens"])
    attempts = tree.named("attempt on ")
    assert any(failed(attempt) for attempt in attempts)
    assert not any(failed(call) for call in tree.named("chat "))
    for call in tree.named("chat "):
        ended_well = [each for each in attempts if each.parent_span_id == call.span_id and not failed(each)]
        assert len(ended_well) == 1, tree


@pytest.mark.parametrize("model", ["echo", "orchestra/debate"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_whose_node_is_killed_is_one_tree(
    told: Receiver, started: ProcessCluster, model: str, stream: bool
) -> None:
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    asking = asyncio.create_task(ask(started, model=model, **more))
    started.kill(await busy_node(started))
    answer = await asking
    tree = await told.whole_tree(answer["orchestra"]["trace_id"], "POST ", "attempt on ", "generate ")
    must_be_one_story(tree, answer)
    if model != "echo":
        assert len(tree.named("invoke_workflow debate")) == 1
        assert tree.named("invoke_agent ")


async def test_what_waited_in_a_queue_says_so_and_is_one_tree(
    told: Receiver, started: ProcessCluster
) -> None:
    answers = await asyncio.gather(*(ask(started) for _ in range(40)))  # for 32 slots
    trees = [
        await told.whole_tree(answer["orchestra"]["trace_id"], "POST ", "generate ") for answer in answers
    ]
    queued = [tree for tree in trees if tree.named("queue")]
    assert queued
    for tree, answer in zip(trees, answers, strict=True):
        assert tree.tokens() == (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])


@pytest.mark.parametrize("path", [CHAT, "/v1/jobs"])
async def test_a_run_whose_coordinator_is_killed_goes_on_under_its_root_with_a_link(
    told: Receiver, started: ProcessCluster, path: str
) -> None:
    asking = asyncio.create_task(ask(started, path, model="orchestra/debate"))
    await busy_node(started)
    started.kill("agents")
    await started.start("stays", "agents")
    answer = await asking
    trace = answer["orchestra"]["trace_id"] if path == CHAT else answer["trace_id"]

    async def attempts() -> list[Span]:
        await told.flush()
        found = told.tree(trace).named("invoke_workflow debate")
        return sorted(found, key=lambda span: attributes(span)["orchestra.attempt"])

    async def both() -> bool:
        return len(await attempts()) == 2

    await eventually(both, within_s=60)
    tree = await told.whole_tree(trace, "POST ")
    lost, new = await attempts()
    assert failed(lost)
    assert attributes(lost)["error.type"] == "node_lost"
    assert not failed(new)
    assert lost.parent_span_id == new.parent_span_id
    assert [link.span_id for link in new.links] == [lost.span_id]
    assert [root.name for root in tree.roots] == [f"POST {path}"]


async def test_a_request_that_lost_a_node_is_kept_by_every_process_though_it_was_left_out(
    told: Receiver, processes: ProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRA_TELEMETRY__SAMPLE_RATIO", "0")
    await asyncio.gather(processes.gateway("gateway"), processes.node("a"), processes.node("b"))
    await processes.ready()
    await ask(processes)
    asking = asyncio.create_task(ask(processes))
    processes.kill(await busy_node(processes))
    assert "trace_id" not in (await asking)["orchestra"]

    async def kept() -> list[str]:
        return [span.trace_id.hex() for span in told.spans if not span.parent_span_id]

    (trace,) = await eventually(kept)
    tree = await told.whole_tree(trace, "POST ", "chat echo", "attempt on a", "attempt on b", "generate echo")
    assert {span.trace_id.hex() for span in told.spans} == {trace}
    assert sum(failed(span) for span in tree.named("attempt on ")) == 1


async def test_a_generation_whose_dispatcher_is_killed_is_one_tree(
    told: Receiver, processes: ProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRA_DISPATCHER__DIRECT", "false")
    await asyncio.gather(
        processes.gateway("gateway"), processes.start("victim", "dispatcher"), processes.node("a")
    )
    await processes.ready()
    asking = asyncio.create_task(ask(processes))
    await busy_node(processes)
    processes.kill("victim")
    await processes.start("next", "dispatcher")
    answer = await asking
    tree = await told.whole_tree(answer["orchestra"]["trace_id"], "POST ", "chat echo", "generate echo")
    assert len(tree.roots) == 1
    assert tree.tokens() == (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])
