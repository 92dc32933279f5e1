"""What the OpenAI backend understands, sends and keeps to itself, before a scripted upstream."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator

import pytest

from actors.backends.openai import OpenAIBackend, OpenAISettings
from orchestration.errors import (
    BackendFailed,
    InvalidRequest,
    UnknownModel,
)
from orchestration.messages import (
    ChatMessage,
    EmbeddingGeneration,
    Finish,
    TextDelta,
    Usage,
    Vectors,
)
from tests.fixtures.scripted import CHAT, DONE, WHOLE, backend_before, once, stream, whole
from tests.fixtures.upstream import (
    MODEL,
    STREAM_END,
    STREAM_HEAD,
    Request,
    chunk,
    delta,
    event,
    response,
)


async def test_an_answer_that_drips_in_a_byte_at_a_time_is_whole() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD
        for byte in b"".join([*WHOLE, DONE]).replace(b"\n", b"\r\n"):
            yield chunk(bytes([byte]))
        yield STREAM_END

    async with backend_before(script) as (backend, _):
        text, finish = await whole(backend)
    assert text == "Hello there"
    assert finish == Finish(reason="stop", usage=Usage(prompt_tokens=7, completion_tokens=2))


async def test_connections_are_kept_and_used_again() -> None:
    async with backend_before(stream(*WHOLE, DONE)) as (backend, upstream):
        for _ in range(5):
            await whole(backend)
        assert len(upstream.requests) == 5
        assert upstream.connections == 1


async def test_a_prompt_of_megabytes_arrives_whole() -> None:
    prompt = "long é " * 400_000
    generation = CHAT.model_copy(update={"messages": (ChatMessage(role="user", content=prompt),)})
    async with backend_before(stream(*WHOLE, DONE)) as (backend, upstream):
        await whole(backend, generation)
        assert upstream.requests[0].body["messages"][0]["content"] == prompt


async def test_no_more_connections_are_open_than_there_are_slots() -> None:
    async with backend_before(stream(*WHOLE, DONE)) as (backend, upstream):
        await asyncio.gather(*(whole(backend) for _ in range(20)))
        assert len(upstream.requests) == 20
        assert upstream.connections <= 4


async def test_chunks_are_counted_and_marked_when_the_upstream_tells_no_usage() -> None:
    async with backend_before(
        stream(event(delta("a")), event(delta("b")), event(delta(None, "length")), DONE)
    ) as (
        backend,
        _,
    ):
        _, finish = await whole(backend)
    assert finish == Finish(
        reason="length", usage=Usage(prompt_tokens=5, completion_tokens=2, estimated=True)
    )


async def test_a_stream_without_its_end_marker_is_whole_if_the_finish_reason_came() -> None:
    async with backend_before(stream(*WHOLE)) as (backend, _):
        assert (await whole(backend))[0] == "Hello there"


@pytest.mark.parametrize("late", [False, True])
async def test_a_model_that_refuses_a_system_message_is_asked_once_more_and_then_at_once_in_its_form(
    late: bool,
) -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        roles = [message["role"] for message in request.body["messages"]]
        if "system" in roles and late:
            error = {"error": {"message": "System role not supported", "code": 400}}
            async for part in stream(b": ping\n\n", event(error))(request):
                yield part
        elif "system" in roles:
            yield response(400, {"error": {"message": "System role not supported"}})
        elif len(set(roles[::2])) + len(set(roles[1::2])) > 2 or roles[:2] == ["user", "user"]:
            yield response(500, {"error": {"message": "Jinja Exception: Conversation roles must alternate"}})
        else:
            async for part in stream(*WHOLE, DONE)(request):
                yield part

    told = (ChatMessage(role="system", content="Be brief."), *CHAT.messages)
    generation = CHAT.model_copy(update={"messages": told})
    async with backend_before(script) as (backend, upstream):
        assert (await whole(backend))[0] == "Hello there"
        for _ in range(2):
            assert (await whole(backend, generation))[0] == "Hello there"
        asked = [request.body["messages"] for request in upstream.requests]
        assert [len(messages) for messages in asked] == [1, 2, 1, 1]
        assert asked[-1] == [{"role": "user", "content": "Be brief.\n\nhello"}]
        await whole(backend, generation.model_copy(update={"messages": (*told, told[1])}))
        assert upstream.requests[-1].body["messages"][0]["content"] == "Be brief.\n\nhello\n\nhello"


async def test_a_refusal_of_roles_that_nothing_helps_is_told() -> None:
    script = once(response(400, {"error": {"message": "Only user and assistant roles are supported"}}))
    async with backend_before(script) as (backend, upstream):
        with pytest.raises(InvalidRequest, match="Only user and assistant"):
            await whole(backend)
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("whatever", "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("content_filter", "content_filter"),
        ("SAFETY", "content_filter"),
        ("tool_calls", "stop"),  # of which none came
    ],
)
async def test_a_finish_reason_is_read_in_the_words_of_several_providers(said: str, meant: str) -> None:
    async with backend_before(stream(event(delta("I")), event(delta(None, said)), DONE)) as (backend, _):
        assert (await whole(backend))[1].reason == meant


async def test_an_answer_that_ends_with_an_error_for_a_reason_is_none() -> None:
    async with backend_before(stream(event(delta("I")), event(delta(None, "error")), DONE)) as (backend, _):
        with pytest.raises(BackendFailed, match="finish_reason error"):
            await whole(backend)


def _delta(**fields: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


MISTRALS = [{"type": "thinking", "thinking": [{"type": "text", "text": "6 times"}]}]


@pytest.mark.parametrize(
    "thought",
    [
        {"reasoning_content": "6 times", "content": None},
        {"reasoning": "6 times", "content": ""},
        {"reasoning_content": "6 times", "reasoning": "6 times"},
        {"reasoning_content": None, "reasoning": "6 times"},
        {"content": MISTRALS},
    ],
)
async def test_reasoning_is_read_under_each_of_its_names(thought: dict[str, object]) -> None:
    told = {"prompt_tokens": 2, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 1}}
    usage = event({"choices": [], "usage": told})
    script = stream(_delta(**thought), _delta(content=[{"type": "text", "text": "42"}]), usage, DONE)
    async with backend_before(script) as (backend, _):
        outputs = [output async for output in backend.generate(CHAT)]
    assert outputs == [
        TextDelta(text="42", reasoning="6 times", tokens=2),
        Finish(reason="stop", usage=Usage(prompt_tokens=2, completion_tokens=2, reasoning_tokens=1)),
    ]


async def test_a_refusal_in_parts_is_whole_at_the_end() -> None:
    script = stream(_delta(refusal="I will"), _delta(refusal=" not."), event(delta(None, "stop")), DONE)
    async with backend_before(script) as (backend, _):
        text, finish = await whole(backend)
    assert (text, finish.refusal, finish.reason) == ("", "I will not.", "stop")


async def test_empty_choices_comments_and_thoughts_add_no_text() -> None:
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]}
    other = {"choices": [{"index": 1, "delta": {"content": "not asked for"}}]}
    script = stream(b": ping\n\n", event({"choices": []}), event(thought), event(other), *WHOLE, DONE)
    async with backend_before(script) as (backend, _):
        pieces = [o async for o in backend.generate(CHAT) if isinstance(o, TextDelta)]
    assert "".join(piece.text for piece in pieces) == "Hello there"
    assert "".join(piece.reasoning for piece in pieces) == "hm"


async def test_events_that_arrive_together_are_few_deltas_in_their_order() -> None:
    thought, word = _delta(reasoning_content="hm"), _delta(content="a")
    script = stream(b"".join([thought, thought, word, word, thought, word]), DONE)
    async with backend_before(script) as (backend, _):
        pieces = [o async for o in backend.generate(CHAT) if isinstance(o, TextDelta)]
    assert [(piece.reasoning, piece.text, piece.tokens) for piece in pieces] == [
        ("hmhm", "aa", 4),
        ("hm", "a", 2),
    ]


async def test_text_that_arrives_with_an_error_after_it_is_given_first() -> None:
    broken = event({"error": {"message": "out of memory", "code": 500}})
    pieces: list[str] = []
    async with backend_before(stream(_delta(content="a") + _delta(content="b") + broken)) as (backend, _):

        async def read() -> None:
            async for output in backend.generate(CHAT):
                assert isinstance(output, TextDelta)
                pieces.append(output.text)

        with pytest.raises(BackendFailed, match="out of memory"):
            await read()
    assert "".join(pieces) == "ab"


async def test_a_server_that_cannot_stream_is_understood() -> None:
    body = {"choices": [{"index": 0, "message": {"content": "at once"}, "finish_reason": "stop"}]}
    async with backend_before(once(response(200, body))) as (backend, _):
        assert (await whole(backend))[0] == "at once"


async def test_the_key_is_sent_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ORCHESTRA_TEST_KEY", "sk-very-secret")
    caplog.set_level("DEBUG")
    script = once(response(401, {"error": {"message": "Incorrect API key: sk-very-secret"}}))
    async with backend_before(script, api_key_env="ORCHESTRA_TEST_KEY") as (backend, upstream):
        with pytest.raises(BackendFailed, match="ORCHESTRA_TEST_KEY") as caught:
            await whole(backend)
        assert upstream.requests[0].headers["authorization"] == "Bearer sk-very-secret"
        seen = f"{caught.value} {caught.value.body()} {backend!r} {backend._settings!r} {caplog.text}"
    assert "sk-very-secret" not in seen


async def test_a_key_that_is_not_set_is_named() -> None:
    backend = OpenAIBackend(
        OpenAISettings(base_url="http://127.0.0.1:9", api_key_env="ORCHESTRA_NO_SUCH_KEY")
    )
    with pytest.raises(BackendFailed, match=r"ORCHESTRA_NO_SUCH_KEY.* is not set"):
        await backend.start()


async def test_served_names_are_mapped_and_others_refused() -> None:
    async with backend_before(stream(*WHOLE, DONE), models={"fast": MODEL}) as (backend, upstream):
        assert [card.name for card in backend.models] == ["fast"]
        assert backend.models[0].context_tokens == 4096
        await whole(backend, CHAT.model_copy(update={"model": "fast"}))
        assert upstream.requests[0].body["model"] == MODEL
        with pytest.raises(UnknownModel, match="known models: fast"):
            await whole(backend)


async def test_embeddings_as_numbers_and_out_of_order_are_put_right() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        data = [{"index": i, "embedding": [float(text), 0.5]} for i, text in enumerate(request.body["input"])]
        yield response(200, {"data": data[::-1], "usage": {"prompt_tokens": len(data)}})

    inputs = tuple(str(number) for number in range(5))
    generation = EmbeddingGeneration(id="a.1", model=MODEL, inputs=inputs)
    async with backend_before(script, embedding_batch=2) as (backend, upstream):
        outputs = [output async for output in backend.generate(generation)]
        assert len(upstream.requests) == 3
    batches = [output for output in outputs if isinstance(output, Vectors)]
    assert [batch.index for batch in batches] == [0, 2, 4]
    vectors = [struct.unpack("<2f", base64.b64decode(v)) for batch in batches for v in batch.vectors]
    assert vectors == [(float(number), 0.5) for number in range(5)]
    assert outputs[-1] == Finish(reason="stop", usage=Usage(prompt_tokens=5))


@pytest.mark.parametrize(
    "body",
    [
        {"data": []},
        {"data": [{"index": 0, "embedding": "!!"}]},
        {"data": [{"index": 0, "embedding": "AAA="}]},
        {"data": [{"index": 1, "embedding": [0.5]}]},
        {"data": [{"index": 0, "embedding": ["x"]}]},
        {"data": 5},
        [1],
    ],
)
async def test_embeddings_that_cannot_be_read_fail(body: object) -> None:
    generation = EmbeddingGeneration(id="a.1", model=MODEL, inputs=("a",))
    async with backend_before(once(response(200, body))) as (backend, _):
        with pytest.raises(BackendFailed, match="cannot be read"):
            await whole(backend, generation)


async def test_an_answer_over_the_limit_is_not_read_to_its_end() -> None:
    body = json.dumps({"data": "x" * 50_000}).encode()
    generation = EmbeddingGeneration(id="a.1", model=MODEL, inputs=("a",))
    async with backend_before(once(response(200, body)), max_answer_bytes=4096) as (backend, _):
        with pytest.raises(BackendFailed, match=r"4096 bytes \(max_answer_bytes\)"):
            await whole(backend, generation)
