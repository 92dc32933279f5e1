"""Backends that misbehave: what they began goes on at another node, and no caller notices."""

from __future__ import annotations

import asyncio
import itertools
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


async def drip(request: Request) -> AsyncIterator[bytes]:
    """A byte at a time, and never an end."""
    yield STREAM_HEAD
    for byte in itertools.cycle(b"".join(BEGUN[:1]) + b": comment\n\n"):
        yield chunk(bytes([byte]))
        await asyncio.sleep(0.01)


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
    "drips": drip,
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
