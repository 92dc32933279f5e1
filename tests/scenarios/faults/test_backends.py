"""Backends that misbehave: what they began goes on at another node, and no caller notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.backends.openai import OpenAIBackend, OpenAISettings
from actors.engine.onnx_backend import OnnxBackend
from actors.engine.settings import OnnxSettings
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.system import ActorSystem
from orchestration.messages import Tool, ToolCall, ToolOffer
from orchestration.placement import BreakerSettings, FirstOutputSettings
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import SETTINGS, LocalCluster
from tests.fixtures.models import smollm2_folder
from tests.fixtures.scripted import hang, once, stream
from tests.fixtures.upstream import (
    MODEL,
    STREAM_END,
    STREAM_HEAD,
    Cut,
    FaultyUpstream,
    Request,
    Script,
    chunk,
    delta,
    event,
    faulty_upstream,
    response,
)

WORDS = "one two three four"
BEGUN = [event(delta("one")), event(delta(" two"))]


async def cut(request: Request) -> AsyncIterator[bytes]:
    yield STREAM_HEAD
    for each in BEGUN:
        yield chunk(each)
    raise Cut


def stalls(request: Request) -> AsyncIterator[bytes]:
    return hang(STREAM_HEAD + b"".join(chunk(each) for each in BEGUN))


FAULTS: dict[str, Script] = {
    "answers 500": once(response(500, {"error": {"message": "no"}})),
    "asks to come back": once(response(429, {"error": {"message": "later"}}, Retry_After="1")),
    "hangs before the first byte": lambda request: hang(b""),
    "stalls in the middle": stalls,
    "cuts the stream": cut,
    "sends what is not JSON": stream(*BEGUN, event(b'{"choices": [')),
    "sends an empty choice": stream(event({"choices": [{}]}), event(b"[DONE]")),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_request_is_answered_though_one_backend(cluster: LocalCluster, fault: str) -> None:
    async with faulty_upstream(FAULTS[fault]) as upstream:
        settings = OpenAISettings(
            base_url=upstream.base_url,
            models={cluster.model: MODEL},
            slots=16,
            first_byte_timeout_s=0.5,
            chunk_timeout_s=0.5,
        )
        backend = OpenAIBackend(settings)
        async with run_node(cluster.node_bus, backend, NodeSettings(id="bad"), ActorSystem()):
            good = await cluster.node("good", slots=8)
            cluster.nodes.pop("good")
            dispatcher = await cluster.dispatcher(sees=2)
            answers = await asyncio.gather(*(cluster.ask(cluster.generation(WORDS)) for _ in range(40)))
            assert [text for text, _ in answers] == [WORDS] * 40
            assert {ended.finish.node for _, ended in answers} == {good.id}
            assert upstream.requests
            await cluster.settled(dispatcher)


async def test_comments_keep_an_answer_alive_that_has_no_text_for_longer_than_a_stall(
    cluster: LocalCluster,
) -> None:
    async def pings(request: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD
        for text in (event(delta("one")), event(delta(" two")), event(delta(None, "stop"))):
            for _ in range(12):
                yield chunk(b": ping\n\n")
                await asyncio.sleep(0.05)  # longer than the limit in all: the quiet is what is tested
            yield chunk(text)
        yield STREAM_END

    async with faulty_upstream(pings) as upstream:
        backend = OpenAIBackend(OpenAISettings(base_url=upstream.base_url, models={cluster.model: MODEL}))
        settings = NodeSettings(id="pings", stall_s=0.4, first_output_s=0.4)
        async with run_node(cluster.node_bus, backend, settings, ActorSystem()):
            dispatcher = await cluster.dispatcher(sees=1)
            assert (await cluster.ask(cluster.generation(WORDS)))[0] == "one two"
            await cluster.settled(dispatcher)


@asynccontextmanager
async def upstream_node(
    cluster: LocalCluster, name: str, script: Script, model: str = ""
) -> AsyncIterator[FaultyUpstream]:
    """A node of 16 slots before an upstream that answers by `script`."""
    async with faulty_upstream(script) as upstream:
        names = {model or cluster.model: MODEL}
        backend = OpenAIBackend(OpenAISettings(base_url=upstream.base_url, models=names, slots=16))
        settings = NodeSettings(id=f"{name}-{cluster.model[-8:]}", stall_s=0.5)
        async with run_node(cluster.node_bus, backend, settings, ActorSystem()):
            yield upstream


@pytest.mark.parametrize("fault", ["stalls in the middle", "cuts the stream", "sends what is not JSON"])
async def test_streams_that_break_after_their_first_text_go_on_at_another_upstream(
    cluster: LocalCluster, fault: str
) -> None:
    whole = stream(*BEGUN, event(delta(" three")), event(delta(" four")), event(delta(None, "stop")))
    async with upstream_node(cluster, "bad", FAULTS[fault]) as bad, upstream_node(cluster, "good", whole):
        dispatcher = await cluster.dispatcher(sees=2)
        answers = await asyncio.gather(*(cluster.ask(cluster.generation(WORDS)) for _ in range(16)))
        assert [text for text, _ in answers] == [WORDS] * 16
        assert {ended.finish.node.split("-")[0] for _, ended in answers} == {"good"}
        assert bad.requests
        await cluster.settled(dispatcher)


async def test_a_tool_call_that_was_cut_off_is_made_once_by_another_upstream(cluster: LocalCluster) -> None:
    def call(arguments: str, **more: str) -> bytes:
        part = {"index": 0, "function": {"name": "f", "arguments": arguments}} | more
        return event({"choices": [{"index": 0, "delta": {"tool_calls": [part]}}]})

    text = event(delta("one"))
    broken = stream(text, call('{"city": "Par', id="bad"), event(b"garbage"))
    whole = stream(text, call('{"city": "Paris"}', id="good"), event(delta(None, "tool_calls")))
    async with upstream_node(cluster, "bad", broken) as bad, upstream_node(cluster, "good", whole):
        dispatcher = await cluster.dispatcher(sees=2)
        offer = ToolOffer(tools=(Tool(name="f"),))
        asked = [cluster.generation().model_copy(update={"offer": offer}) for _ in range(16)]
        answers = await asyncio.gather(*map(cluster.ask, asked))
        assert bad.requests
        for said, ended in answers:
            assert said == "one"
            assert ended.finish.calls == (ToolCall(id="good", name="f", arguments='{"city": "Paris"}'),)
        await cluster.settled(dispatcher)


async def test_a_stream_that_an_upstream_broke_goes_on_at_an_onnx_node(cluster: LocalCluster) -> None:
    begun = "The capital of France is the city of"
    broken = stream(*(event(delta(f"{word} ")) for word in begun.split()), event(b"garbage"))
    model = "smollm2-135m"
    onnx = OnnxBackend([smollm2_folder()], OnnxSettings(slots=1))
    settings = NodeSettings(id=f"onnx-{cluster.model[-8:]}")
    async with (
        upstream_node(cluster, "bad", broken, model) as bad,
        run_node(cluster.node_bus, onnx, settings, ActorSystem()),
    ):
        dispatcher = await cluster.dispatcher(sees=0)
        await eventually(lambda: len(dispatcher.registry.serving(model)) == 2)
        question = cluster.generation("Which city is the capital of France?", tokens=16)
        asked = [
            question.model_copy(update={"model": model, "id": cluster.streams.new_id()}) for _ in range(4)
        ]
        answers = await asyncio.gather(*map(cluster.ask, asked))
        assert bad.requests
        moved = [(text, ended) for text, ended in answers if text.startswith(begun)]
        assert moved
        for text, ended in moved:
            assert "Paris" in text
            assert ended.finish.node == settings.id
            assert ended.finish.usage.completion_tokens <= 16
        await cluster.settled(dispatcher)


async def test_an_upstream_that_never_answers_keeps_nobody_for_long_and_gets_no_more(
    cluster: LocalCluster,
) -> None:
    """Its node has limits of minutes; the dispatcher learns better ones from the node that is well."""
    learnt = FirstOutputSettings(min_s=0.5)
    patient = BreakerSettings(dwell_s=60, max_dwell_s=60)
    settings = SETTINGS.model_copy(update={"first_output": learnt, "breaker": patient})
    async with upstream_node(cluster, "hung", lambda request: hang(b"")) as hung:
        await cluster.node("well", slots=8)
        cluster.nodes.pop("well")
        dispatcher = await cluster.dispatcher(settings, sees=2)
        answers = await asyncio.gather(*(cluster.ask(cluster.generation(WORDS)) for _ in range(16)))
        assert [text for text, _ in answers] == [WORDS] * 16
        tried = len(hung.requests)
        assert tried
        for _ in range(8):
            await cluster.ask(cluster.generation(WORDS))
        assert len(hung.requests) == tried
        await cluster.settled(dispatcher)


async def test_an_upstream_that_never_answers_is_waited_for_where_nobody_else_is(
    cluster: LocalCluster,
) -> None:
    late = asyncio.Event()

    async def after_a_while(request: Request) -> AsyncIterator[bytes]:
        await late.wait()
        async for part in stream(*BEGUN, event(delta(None, "stop")), event(b"[DONE]"))(request):
            yield part

    settings = SETTINGS.model_copy(
        update={"first_output": FirstOutputSettings(min_s=0.01, max_s=0.01, unknown_s=0.01)}
    )
    async with upstream_node(cluster, "slow", after_a_while) as slow:
        dispatcher = await cluster.dispatcher(settings, sees=1)
        asked = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS)))
        await eventually(lambda: slow.requests)
        for _ in range(3):
            await dispatcher.executor.hung_nodes.check()
        late.set()
        assert (await asked)[0] == "one two"
        assert len(slow.requests) == 1
        await cluster.settled(dispatcher)
