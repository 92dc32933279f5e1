"""The echo backend: deterministic answers, honest pacing, failures on demand."""

from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
import pytest
from pydantic import ValidationError

from actors.backends.base import Output
from actors.backends.echo import EchoBackend, EchoSettings
from orchestration.errors import BackendFailed, ContextTooLong, InvalidGuide, InvalidRequest, UnknownModel
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    CompletionGeneration,
    EmbeddingGeneration,
    Finish,
    Generation,
    GuidedDecoding,
    Sampling,
    TextDelta,
    Vectors,
)


def _chat(text: str, guide: GuidedDecoding | None = None, **sampling: object) -> Generation:
    return ChatGeneration(
        id="asker.1",
        model="echo",
        messages=(
            ChatMessage(role="user", content=text),
            ChatMessage(role="assistant", content="before this"),
        ),
        sampling=Sampling.model_validate(sampling),
        guide=guide,
    )


async def _answer(backend: EchoBackend, generation: Generation) -> tuple[str, Finish, list[Output]]:
    outputs = [output async for output in backend.generate(generation)]
    finish = outputs[-1]
    assert isinstance(finish, Finish)
    return "".join(o.text for o in outputs if isinstance(o, TextDelta)), finish, outputs


async def test_it_says_the_last_user_message_word_by_word() -> None:
    text, finish, outputs = await _answer(EchoBackend(), _chat("one  two\nthree"))
    assert text == "one  two\nthree"
    assert len(outputs) == 4
    assert finish.reason == "stop"
    assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (5, 3)


async def test_max_tokens_trims_and_repeats() -> None:
    backend = EchoBackend()
    text, finish, _ = await _answer(backend, _chat("one two three", max_tokens=2))
    assert (text, finish.reason) == ("one two", "length")
    text, finish, _ = await _answer(backend, _chat("one two three", max_tokens=7))
    assert text == "one two three one two three one"
    assert (finish.reason, finish.usage.completion_tokens) == ("length", 7)
    text, finish, _ = await _answer(EchoBackend(EchoSettings(repeat=False)), _chat("one two", max_tokens=7))
    assert (text, finish.reason) == ("one two", "stop")


async def test_the_context_bounds_the_answer_and_the_prompt() -> None:
    backend = EchoBackend(EchoSettings(context_tokens=10))
    _, finish, _ = await _answer(backend, _chat("one two three", max_tokens=1_000_000_000))
    assert finish.usage.completion_tokens == 5
    with pytest.raises(ContextTooLong, match=r"12 tokens.* 10 tokens"):
        await _answer(backend, _chat("w " * 10))


@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        ("three", "one two ", "stop"),
        ("o t", "one tw", "stop"),  # across a border of words
        ("one", "", "stop"),
        ("four", "one two three", "stop"),
    ],
)
async def test_a_stop_string_ends_the_answer_before_it(stop: str, text: str, reason: str) -> None:
    said, finish, _ = await _answer(EchoBackend(), _chat("one two three", stop=[stop]))
    assert (said.strip(), finish.reason) == (text.strip(), reason)


async def test_pacing_keeps_its_rate_and_does_not_drift() -> None:
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds + 0.001  # every sleep is late

    backend = EchoBackend(EchoSettings(speed=200.0), clock=lambda: now, sleep=sleep)
    async for _ in backend.generate(_chat("w", max_tokens=101)):
        now += 0.003  # the reader takes its time
    # 100 intervals of 5 ms; then the last sleep is late, and its token and the finish are read.
    # Sleeps of 5 ms between tokens would have made it 0.9 s.
    assert now == pytest.approx(0.507)


async def test_full_speed_lets_others_run() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await _answer(EchoBackend(), _chat("w", max_tokens=320))
    ticking.cancel()
    assert ticks >= 10


async def test_failures_come_exactly_when_they_are_set() -> None:
    backend = EchoBackend(EchoSettings(fail_first=1, fail_every=3, fail_after=2))
    said: list[int | None] = []
    for _ in range(6):
        pieces = 0
        try:
            async for output in backend.generate(_chat("one two three")):
                pieces += isinstance(output, TextDelta)
        except BackendFailed:
            said.append(pieces)
        else:
            said.append(None)
    assert said == [0, None, 2, None, None, 2]


async def test_a_stalled_generation_ends_when_it_is_cancelled() -> None:
    backend = EchoBackend(EchoSettings(stall_after=2))
    said: list[str] = []
    two = asyncio.Event()

    async def listen() -> None:
        async for output in backend.generate(_chat("one two three")):
            assert isinstance(output, TextDelta)
            said.append(output.text)
            if len(said) == 2:
                two.set()

    listening = asyncio.create_task(listen())
    await two.wait()
    done, _ = await asyncio.wait([listening], timeout=0.05)
    assert not done
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    assert said == ["one", " two"]


async def test_embeddings_are_unit_vectors_that_depend_on_the_text_alone() -> None:
    backend = EchoBackend(EchoSettings(embedding_models=("vec",), dimensions=16))
    inputs = ("a", "b", "a", *(f"text {i}" for i in range(97)))
    generation = EmbeddingGeneration(id="a.1", model="vec", inputs=inputs)
    outputs = [output async for output in backend.generate(generation)]
    vectors: list[str] = []
    for output in outputs[:-1]:
        assert isinstance(output, Vectors)
        assert output.index == len(vectors)
        vectors += output.vectors
    assert len(vectors) == 100
    assert vectors[0] == vectors[2] != vectors[1]
    first = np.frombuffer(base64.b64decode(vectors[0]), "<f4")
    assert first.shape == (16,)
    assert np.linalg.norm(first) == pytest.approx(1.0, abs=1e-6)
    assert {card.name: card.kind for card in backend.models} == {"echo": "chat", "vec": "embedding"}


async def test_a_guide_gets_a_value_of_the_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 2},
            "count": {"type": "integer", "minimum": 3},
            "note": {"type": "string", "maxLength": 2},
            "sure": {"type": "boolean"},
        },
        "required": ["steps", "count", "note", "sure"],
        "$defs": {"step": {"type": "object", "properties": {"agent": {"enum": ["critic", "code"]}}}},
    }
    text, finish, _ = await _answer(
        EchoBackend(), _chat("plan", GuidedDecoding(json_schema=schema), max_tokens=64)
    )
    assert json.loads(text) == {
        "steps": [{"agent": "critic"}, {"agent": "critic"}],
        "count": 3,
        "note": "ec",
        "sure": False,
    }
    assert finish.reason == "stop"


@pytest.mark.parametrize(
    "guide",
    [
        GuidedDecoding(regex="[ab]+"),
        GuidedDecoding(json_schema={"type": "string", "pattern": "a+"}),
        GuidedDecoding(json_schema={"type": "nonsense"}),
        GuidedDecoding(json_schema={"$ref": "#/$defs/nowhere"}),
        GuidedDecoding(json_schema={"$ref": "#"}),
        GuidedDecoding(json_schema={"type": "array", "minItems": 10**9}),
        GuidedDecoding(json_schema={"type": "object", "properties": [1]}),
    ],
)
async def test_a_guide_it_cannot_follow_is_refused(guide: GuidedDecoding) -> None:
    with pytest.raises(InvalidGuide):
        await _answer(EchoBackend(), _chat("x", guide))


async def test_bad_requests_are_named() -> None:
    backend = EchoBackend()
    with pytest.raises(UnknownModel, match="known models: echo"):
        await _answer(backend, CompletionGeneration(id="a.1", model="other", prompt="x"))
    with pytest.raises(InvalidRequest) as caught:
        await _answer(backend, ChatGeneration(id="a.1", model="echo"))
    assert caught.value.param == "messages"
    with pytest.raises(ValidationError):
        EchoSettings(dimensions=4)


async def test_logprobs_say_that_echo_is_certain() -> None:
    _, _, outputs = await _answer(EchoBackend(), _chat("one two", logprobs=True, top_logprobs=1))
    piece = outputs[1]
    assert isinstance(piece, TextDelta)
    assert piece.logprobs is not None
    assert (piece.logprobs[0].token, piece.logprobs[0].logprob) == (" two", 0.0)
    assert piece.logprobs[0].top_logprobs[0].bytes == tuple(b" two")
