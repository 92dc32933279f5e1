"""The OpenAI backend before llama.cpp's own server with a real model."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from actors.backends.base import Output
from actors.backends.openai import OpenAIBackend, OpenAISettings
from orchestration.errors import ContextTooLong, InvalidGuide, UnknownModel
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    CompletionGeneration,
    Continuation,
    EmbeddingGeneration,
    Finish,
    Generation,
    GuidedDecoding,
    Sampling,
    TextDelta,
    Vectors,
)
from tests.fixtures.eventually import eventually
from tests.fixtures.llamacpp import MODEL, LlamaServer, serve_llamacpp, smollm2_gguf

CAPITAL = "Which city is the capital of France? Answer with its name."
GREEDY = Sampling(temperature=0, max_tokens=24)


@pytest.fixture
async def backend(llamacpp: LlamaServer) -> AsyncIterator[OpenAIBackend]:
    backend = OpenAIBackend(
        OpenAISettings(
            base_url=llamacpp.base_url,
            models={"smollm2-135m": MODEL},
            slots=2,
            repetition_penalty_field="repeat_penalty",
            completion_schema_field="json_schema",
        )
    )
    await backend.start()
    yield backend
    await backend.close()


def _chat(text: str, sampling: Sampling = GREEDY, guide: GuidedDecoding | None = None) -> Generation:
    message = ChatMessage(role="user", content=text)
    return ChatGeneration(id="a.1", model="smollm2-135m", messages=(message,), sampling=sampling, guide=guide)


async def _all(backend: OpenAIBackend, generation: Generation) -> tuple[str, list[TextDelta], Finish]:
    outputs: list[Output] = [output async for output in backend.generate(generation)]
    finish = outputs[-1]
    assert isinstance(finish, Finish)
    pieces = [output for output in outputs if isinstance(output, TextDelta)]
    return "".join(piece.text for piece in pieces), pieces, finish


async def _busy_slots(server: LlamaServer) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/slots") as answer:
        slots: list[dict[str, Any]] = await answer.json()
    return sum(bool(slot["is_processing"]) for slot in slots)


async def _wait_for_busy(server: LlamaServer, number: int) -> None:
    async def so_many() -> bool:
        return await _busy_slots(server) == number

    await eventually(so_many)


async def test_a_chat_streams_the_models_answer(backend: OpenAIBackend) -> None:
    text, pieces, finish = await _all(backend, _chat(CAPITAL))
    assert "Paris" in text
    assert len(pieces) > 1  # as many as were read at once
    assert finish.reason == "stop"
    assert finish.usage.completion_tokens >= len(pieces)
    assert finish.usage.prompt_tokens > 20
    assert not finish.usage.estimated


async def test_max_tokens_and_stop_strings_end_an_answer(backend: OpenAIBackend) -> None:
    _, _, finish = await _all(backend, _chat("Count to ten.", Sampling(temperature=0, max_tokens=3)))
    assert (finish.reason, finish.usage.completion_tokens) == ("length", 3)
    stopping = Sampling(temperature=0, max_tokens=24, stop=("Paris",))
    text, _, finish = await _all(backend, _chat(CAPITAL, stopping))
    assert "Paris" not in text
    assert finish.reason == "stop"


async def test_a_completion_continues_its_prompt(backend: OpenAIBackend) -> None:
    generation = CompletionGeneration(
        id="a.1",
        model="smollm2-135m",
        prompt="The capital of France is",
        sampling=Sampling(temperature=0, max_tokens=4, logprobs=True, top_logprobs=1),
    )
    text, pieces, finish = await _all(backend, generation)
    assert "Paris" in text
    assert finish.usage.completion_tokens == 4
    assert sum(len(piece.logprobs or ()) for piece in pieces) == 4


async def test_a_schema_guides_a_chat_and_a_completion(backend: OpenAIBackend) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    guide = GuidedDecoding(json_schema=schema)
    sampling = Sampling(temperature=0, max_tokens=64)
    text, _, _ = await _all(backend, _chat("Name a city as JSON.", sampling, guide))
    assert set(json.loads(text)) == {"city", "sure"}
    completion = CompletionGeneration(
        id="a.1", model="smollm2-135m", prompt="City:", sampling=sampling, guide=guide
    )
    text, _, _ = await _all(backend, completion)
    assert set(json.loads(text)) == {"city", "sure"}


async def test_a_schema_that_the_server_refuses_is_an_invalid_guide(backend: OpenAIBackend) -> None:
    with pytest.raises(InvalidGuide, match="nonsense"):
        await _all(backend, _chat("x", guide=GuidedDecoding(json_schema={"type": "nonsense"})))


async def test_logprobs_come_with_their_tokens(backend: OpenAIBackend) -> None:
    sampling = Sampling(temperature=0, max_tokens=5, logprobs=True, top_logprobs=3)
    _, pieces, _ = await _all(backend, _chat("Hi", sampling))
    tokens = [token for piece in pieces for token in piece.logprobs or ()]
    assert len(tokens) == 5
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        # Greedy: the token that was taken is the likeliest one.
        assert token.top_logprobs[0].token == token.token
        assert bytes(token.bytes).decode() == token.token


async def test_the_same_seed_gives_the_same_answer(backend: OpenAIBackend) -> None:
    sampling = Sampling(temperature=1.5, seed=11, max_tokens=12)
    first, _, _ = await _all(backend, _chat("Tell me a story.", sampling))
    second, _, _ = await _all(backend, _chat("Tell me a story.", sampling))
    other, _, _ = await _all(backend, _chat("Tell me a story.", sampling.model_copy(update={"seed": 12})))
    assert first == second != other


async def test_a_repetition_penalty_reaches_the_sampler(backend: OpenAIBackend) -> None:
    plain = Sampling(temperature=0, max_tokens=12)
    penalised = plain.model_copy(update={"repetition_penalty": 2.0})
    request = "Repeat: ha ha ha ha ha ha ha ha"
    assert (await _all(backend, _chat(request, plain)))[0] != (
        await _all(backend, _chat(request, penalised))
    )[0]


async def test_cancelling_frees_the_servers_slot(backend: OpenAIBackend, llamacpp: LlamaServer) -> None:
    long = _chat("Write a very long story.", Sampling(temperature=1, max_tokens=1900))
    started = asyncio.Event()

    async def listen() -> None:
        async for _ in backend.generate(long):
            started.set()

    listening = asyncio.create_task(listen())
    await asyncio.wait_for(started.wait(), 30)
    await _wait_for_busy(llamacpp, 1)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    await _wait_for_busy(llamacpp, 0)


async def test_embeddings_are_unit_vectors_in_the_order_of_their_inputs() -> None:
    with serve_llamacpp(smollm2_gguf(), slots=1, embeddings=True) as server:
        backend = OpenAIBackend(OpenAISettings(base_url=server.url, models={"embed": MODEL}))
        await backend.start()
        inputs = ("a dog barks", "stock markets fell", "a dog barks")
        generation = EmbeddingGeneration(id="a.1", model="embed", inputs=inputs)
        outputs = [output async for output in backend.generate(generation)]
        await backend.close()
    first, finish = outputs
    assert isinstance(first, Vectors)
    assert isinstance(finish, Finish)
    assert finish.usage.prompt_tokens >= 9
    vectors = [struct.unpack("<576f", base64.b64decode(vector)) for vector in first.vectors]
    assert all(math.hypot(*vector) == pytest.approx(1, abs=1e-3) for vector in vectors)
    assert math.dist(vectors[0], vectors[2]) < 0.5 * math.dist(vectors[0], vectors[1])


async def test_a_prompt_over_the_context_names_both_numbers(backend: OpenAIBackend) -> None:
    with pytest.raises(ContextTooLong, match=r"30\d\d tokens.* 2048 tokens"):
        await _all(backend, _chat("hello " * 3000))


async def test_an_unknown_model_is_refused_with_the_known_ones(backend: OpenAIBackend) -> None:
    with pytest.raises(UnknownModel, match="known models: smollm2-135m"):
        await _all(backend, CompletionGeneration(id="a.1", model="gpt-9", prompt="x"))


async def test_models_are_found_at_the_server_with_what_it_tells(llamacpp: LlamaServer) -> None:
    backend = OpenAIBackend(OpenAISettings(base_url=llamacpp.url))
    await backend.start()
    try:
        (card,) = backend.models
        assert (card.name, card.kind, card.context_tokens) == (MODEL, "chat", 2048)
        assert card.parameters == 134_515_008
        assert backend.hardware.provider == f"openai {llamacpp.url.removeprefix('http://')}"
        assert backend.hardware.memory_bytes > 0
    finally:
        await backend.close()
        await backend.close()


async def test_an_answer_that_another_node_began_goes_on_as_it_would_have(backend: OpenAIBackend) -> None:
    asked = _chat("Count from one to ten in words.", Sampling(temperature=0, max_tokens=20))
    text, pieces, finish = await _all(backend, asked)
    begun = "".join(piece.text for piece in pieces[:4])
    rest, _, end = await _all(
        backend, asked.model_copy(update={"continuation": Continuation(text=begun, tokens=4)})
    )
    assert begun + rest == text
    assert end.usage.completion_tokens == finish.usage.completion_tokens
    assert abs(end.usage.prompt_tokens - finish.usage.prompt_tokens) <= 2  # other cuts of the same text
