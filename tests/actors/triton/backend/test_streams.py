"""Chats through Triton: streamed, cancelled, cut off in time, failing with errors that say what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from actors.runtime.envelope import Envelope, current_envelope
from actors.triton.backend.backend import TritonBackend
from orchestration.errors import (
    BackendFailed,
    ContextTooLong,
    DeadlineExceeded,
    InvalidRequest,
    OrchestraError,
    UnknownModel,
)
from orchestration.messages import Continuation, EmbeddingGeneration, TextDelta
from tests.actors.triton.backend.repository import answered, backend_for, chat_model, saying
from tests.fixtures.eventually import eventually
from tests.fixtures.triton import RunningTriton


@pytest.fixture(scope="module")
def name(triton_server: RunningTriton) -> Iterator[str]:
    name = chat_model(triton_server)
    yield name
    triton_server.unload(name)


@pytest.fixture
async def backend(triton_server: RunningTriton, name: str) -> AsyncIterator[TritonBackend]:
    async with backend_for(triton_server, name) as started:
        yield started


async def test_an_answer_is_streamed_piece_by_piece(backend: TritonBackend, name: str) -> None:
    outputs = [output async for output in backend.generate(saying(name, "count 3"))]
    assert [output.text for output in outputs if isinstance(output, TextDelta)] == ["w0 ", "w1 ", "w2 "]
    _, finish = await answered(backend, saying(name, "count 3"))
    assert (finish.reason, finish.usage.prompt_tokens, finish.usage.completion_tokens) == ("stop", 3, 3)


async def test_many_answers_are_streamed_at_once(backend: TritonBackend, name: str) -> None:
    asked = (answered(backend, saying(name, f"count {number} every 0.01")) for number in range(1, 21))
    texts = [text for text, _ in await asyncio.gather(*asked)]
    assert [len(text.split()) for text in texts] == list(range(1, 21))


async def test_an_answer_goes_on_from_what_another_node_wrote(backend: TritonBackend, name: str) -> None:
    text, _ = await answered(
        backend, saying(name, "count 4", continuation=Continuation(text="w0 w1 ", tokens=2))
    )
    assert text == "w2 w3 "


async def test_leaving_an_answer_stops_the_model(backend: TritonBackend, name: str) -> None:
    before, _ = await answered(backend, saying(name, "told"))
    async with aclosing(backend.generate(saying(name, "count 100000 every 0.01"))) as outputs:
        await anext(outputs)

    async def one_more() -> bool:
        told, _ = await answered(backend, saying(name, "told"))
        return int(told) == int(before) + 1

    await eventually(one_more)


async def test_the_deadline_of_the_caller_ends_an_answer(backend: TritonBackend, name: str) -> None:
    token = current_envelope.set(Envelope.within(0.5))
    try:
        with pytest.raises(DeadlineExceeded):
            await answered(backend, saying(name, "count 100000 every 0.01"))
    finally:
        current_envelope.reset(token)


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("fail context_length_exceeded: 9000 tokens are too many", ContextTooLong, "9000 tokens"),
        ("fail CUDA error: out of memory", BackendFailed, "is out of memory"),
        ("fail RuntimeError: no", BackendFailed, "RuntimeError: no"),
        ("odd usage", BackendFailed, "a usage"),
        ("odd finish_reason", BackendFailed, "no such reason"),
    ],
)
async def test_what_goes_wrong_in_the_model_is_told_as_what_it_is(
    backend: TritonBackend, name: str, script: str, kind: type[OrchestraError], words: str
) -> None:
    with pytest.raises(kind, match=words) as raised:
        await answered(backend, saying(name, script))
    assert type(raised.value) is kind


async def test_what_cannot_be_asked_of_a_model_is_refused(backend: TritonBackend, name: str) -> None:
    with pytest.raises(UnknownModel, match="no model 'other'"):
        await answered(backend, saying("other", "count 1"))
    embedding = EmbeddingGeneration(id="test.1", model=name, inputs=("a",))
    with pytest.raises(InvalidRequest, match="makes no embeddings"):
        await answered(backend, embedding)
