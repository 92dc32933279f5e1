"""Backends that misbehave: what they began goes on at another node, and no caller notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.node.backends.openai import OpenAIBackend, OpenAISettings
from actors.node.role import run_node
from actors.node.settings import NodeSettings
from actors.runtime.system import ActorSystem
from tests.fixtures.scripted import hang, once, stream
from tests.fixtures.stage import Stage
from tests.fixtures.upstream import (
    MODEL,
    STREAM_END,
    STREAM_HEAD,
    Cut,
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
async def test_every_request_is_answered_though_one_backend(stage: Stage, fault: str) -> None:
    async with faulty_upstream(FAULTS[fault]) as upstream:
        settings = OpenAISettings(
            base_url=upstream.base_url,
            models={stage.model: MODEL},
            slots=16,
            first_byte_timeout_s=0.5,
            chunk_timeout_s=0.5,
        )
        backend = OpenAIBackend(settings)
        async with run_node(stage.bus, backend, NodeSettings(id="bad"), ActorSystem()):
            good = await stage.node("good", slots=8)
            stage.nodes.pop("good")
            dispatcher = await stage.dispatcher(sees=2)
            answers = await asyncio.gather(*(stage.ask(stage.generation(WORDS)) for _ in range(40)))
            assert [text for text, _ in answers] == [WORDS] * 40
            assert {ended.node for _, ended in answers} == {good.id}
            assert upstream.requests
            await stage.settled(dispatcher)


async def test_comments_keep_an_answer_alive_that_has_no_text_for_longer_than_a_stall(stage: Stage) -> None:
    async def pings(request: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD
        for text in (event(delta("one")), event(delta(" two")), event(delta(None, "stop"))):
            for _ in range(12):
                yield chunk(b": ping\n\n")
                await asyncio.sleep(0.05)  # longer than the limit in all: the quiet is what is tested
            yield chunk(text)
        yield STREAM_END

    async with faulty_upstream(pings) as upstream:
        backend = OpenAIBackend(OpenAISettings(base_url=upstream.base_url, models={stage.model: MODEL}))
        settings = NodeSettings(id="pings", stall_s=0.4, first_output_s=0.4)
        async with run_node(stage.bus, backend, settings, ActorSystem()):
            dispatcher = await stage.dispatcher(sees=1)
            assert (await stage.ask(stage.generation(WORDS)))[0] == "one two"
            await stage.settled(dispatcher)
