"""Short answers that are requested in one piece, because their caller wants them whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.backends.openai import OpenAIBackend, OpenAISettings, answer_time
from actors.backends.openai.answer_time import WHOLE_S, AnswerTime
from orchestration.errors import BackendFailed, ContextTooLong, InvalidRequest
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    CompletionGeneration,
    Continuation,
    Finish,
    Generation,
    Sampling,
    TextDelta,
)
from tests.fixtures.llamacpp import MODEL as LLAMA_MODEL
from tests.fixtures.llamacpp import LlamaServer
from tests.fixtures.scripted import CHAT, DONE, WHOLE, backend_before, stream, whole
from tests.fixtures.upstream import Cut, Request, response

SHORT = CHAT.model_copy(update={"streamed": False, "sampling": Sampling(max_tokens=2)})
PLAIN = {
    "choices": [{"index": 0, "message": {"content": "Hello there"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2},
}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine does not count as a slow upstream."""
    monkeypatch.setattr(answer_time, "WHOLE_S", 600.0)


async def either(request: Request) -> AsyncIterator[bytes]:
    """Answers in the form that was requested."""
    if request.body["stream"]:
        async for part in stream(*WHOLE, DONE)(request):
            yield part
    else:
        assert "stream_options" not in request.body
        yield response(200, PLAIN)


def test_the_time_of_an_answer_grows_with_its_limit() -> None:
    times = AnswerTime()
    assert times.streams(1)
    times.learn(0.2, 10)
    assert times.predict_s(10) == pytest.approx(0.2)
    assert times.predict_s(1) == pytest.approx(0.2)
    assert times.predict_s(40) == pytest.approx(0.8)
    assert times.predict_s(None) > 1e9


def test_only_short_answers_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_time, "WHOLE_S", WHOLE_S)
    times = AnswerTime()
    times.learn(WHOLE_S / 2, 10)
    assert not times.streams(20)
    assert times.streams(21)
    for _ in range(20):
        times.learn(WHOLE_S * 2, 10)
    assert times.streams(1)


async def test_an_answer_is_requested_whole_once_the_upstream_is_known_to_be_fast() -> None:
    async with backend_before(either) as (backend, upstream):
        answers = [await whole(backend, SHORT) for _ in range(3)]
        assert [request.body["stream"] for request in upstream.requests] == [True, False, False]
        assert answers[0] == answers[1] == answers[2]
        await whole(backend, CHAT)
        assert upstream.requests[-1].body["stream"] is True


async def test_without_a_limit_or_after_a_prefix_an_answer_is_streamed() -> None:
    async with backend_before(either) as (backend, upstream):
        await whole(backend, SHORT)
        await whole(backend, CHAT.model_copy(update={"streamed": False}))
        prefix = Continuation(text="Hello", tokens=1, first_seq=1)
        await whole(backend, SHORT.model_copy(update={"continuation": prefix}))
        assert {request.body["stream"] for request in upstream.requests} == {True}


async def test_an_upstream_that_only_streams_is_asked_so() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        if request.body["stream"]:
            async for part in either(request):
                yield part
        else:
            yield response(400, {"error": {"message": "This model only supports streaming"}})

    async with backend_before(script) as (backend, upstream):
        answers = [await whole(backend, SHORT) for _ in range(3)]
        assert [request.body["stream"] for request in upstream.requests] == [True, False, True, True]
        assert {text for text, _ in answers} == {"Hello there"}


async def test_a_refusal_of_the_request_itself_is_no_refusal_of_the_form() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        if request.body.get("seed"):
            yield response(400, {"error": {"message": "no seeds"}})
        else:
            async for part in either(request):
                yield part

    async with backend_before(script) as (backend, upstream):
        await whole(backend, SHORT)
        with pytest.raises(InvalidRequest, match="no seeds"):
            await whole(backend, SHORT.model_copy(update={"sampling": Sampling(max_tokens=2, seed=1)}))
        await whole(backend, SHORT)
        assert upstream.requests[-1].body["stream"] is False


async def test_a_whole_answer_that_is_cut_off_failed() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        if request.body["stream"]:
            async for part in either(request):
                yield part
        else:
            yield response(200, PLAIN)[:-10]
            raise Cut

    async with backend_before(script) as (backend, _):
        await whole(backend, SHORT)
        with pytest.raises(BackendFailed):
            await whole(backend, SHORT)


async def test_llamacpp_answers_the_same_in_both_forms(llamacpp: LlamaServer) -> None:
    settings = OpenAISettings(base_url=llamacpp.base_url, models={"m": LLAMA_MODEL}, slots=2)
    backend = OpenAIBackend(settings)
    await backend.start()
    try:
        sampling = Sampling(temperature=0, max_tokens=8, logprobs=True)
        message = ChatMessage(role="user", content="Count from one to ten.")
        asked: list[Generation] = [
            ChatGeneration(id="a.1", model="m", messages=(message,), sampling=sampling),
            CompletionGeneration(id="a.2", model="m", prompt="one, two,", sampling=sampling),
        ]
        for generation in asked:
            streamed = [output async for output in backend.generate(generation)]
            plain = generation.model_copy(update={"streamed": False})
            piece, finish = [output async for output in backend.generate(plain)]
            deltas = [output for output in streamed if isinstance(output, TextDelta)]
            assert isinstance(piece, TextDelta)
            assert piece.text == "".join(delta.text for delta in deltas)
            assert piece.tokens == sum(delta.tokens for delta in deltas)
            assert [token.token for token in piece.logprobs or ()] == [
                token.token for delta in deltas for token in delta.logprobs or ()
            ]
            end = streamed[-1]
            assert isinstance(finish, Finish)
            assert isinstance(end, Finish)
            assert finish.reason == end.reason
            assert finish.usage.prompt_tokens == end.usage.prompt_tokens
            assert finish.usage.completion_tokens == end.usage.completion_tokens
    finally:
        await backend.close()


async def test_a_prompt_that_is_too_long_is_refused_once() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        if request.body["stream"]:
            async for part in either(request):
                yield part
        else:
            message = "This model's maximum context length is 10 tokens"
            yield response(400, {"error": {"message": message, "code": "context_length_exceeded"}})

    async with backend_before(script) as (backend, upstream):
        await whole(backend, SHORT)
        with pytest.raises(ContextTooLong):
            await whole(backend, SHORT)
        assert len(upstream.requests) == 2
