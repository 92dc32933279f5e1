"""The OpenAI backend before upstreams that misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.node.backends.base import Embeddings, Finish, Output, Piece
from actors.node.backends.openai import OpenAIBackend, OpenAISettings
from orchestration.errors import (
    BackendFailed,
    InvalidRequest,
    NodeBusy,
    OrchestraError,
    Unavailable,
    UnknownModel,
)
from orchestration.messages import ChatMessage, Generation, Usage
from tests.fixtures.upstream import (
    MODEL,
    STREAM_END,
    STREAM_HEAD,
    USAGE,
    Cut,
    FaultyUpstream,
    Request,
    chunk,
    delta,
    event,
    faulty_upstream,
    port_that_never_accepts,
    response,
)

CHAT = Generation(id="a.1", model=MODEL, messages=(ChatMessage(role="user", content="hello"),))
WHOLE = [event(delta("Hello")), event(delta(" there")), event(delta(None, "stop")), event(USAGE)]
DONE = event(b"[DONE]")


def _stream(*events: bytes, end: bool = True) -> Callable[[Request], AsyncIterator[bytes]]:
    """A script that streams `events`, each in a write of its own."""

    async def script(request: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD
        for one in events:
            yield chunk(one)
        if end:
            yield STREAM_END

    return script


def _once(*parts: bytes) -> Callable[[Request], AsyncIterator[bytes]]:
    async def script(request: Request) -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return script


async def _hang(before: bytes) -> AsyncIterator[bytes]:
    yield before
    await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def _backend(
    script: Callable[[Request], AsyncIterator[bytes]], **settings: Any
) -> AsyncIterator[tuple[OpenAIBackend, FaultyUpstream]]:
    async with faulty_upstream(script) as upstream:
        backend = OpenAIBackend(
            OpenAISettings.model_validate({"base_url": upstream.base_url, "slots": 4} | settings)
        )
        await backend.start()
        try:
            yield backend, upstream
        finally:
            await backend.close()


async def _all(backend: OpenAIBackend, generation: Generation = CHAT) -> tuple[str, Finish]:
    outputs: list[Output] = [output async for output in backend.generate(generation)]
    finish = outputs[-1]
    assert isinstance(finish, Finish)
    return "".join(o.text for o in outputs if isinstance(o, Piece)), finish


async def _fails(
    kind: type[OrchestraError], text: str, script: Callable[[Request], AsyncIterator[bytes]], **settings: Any
) -> OrchestraError:
    async with _backend(script, **settings) as (backend, _):
        with pytest.raises(kind, match=text) as caught:
            await _all(backend)
    return caught.value


async def test_an_answer_that_drips_in_a_byte_at_a_time_is_whole() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD
        for byte in b"".join([*WHOLE, DONE]).replace(b"\n", b"\r\n"):
            yield chunk(bytes([byte]))
        yield STREAM_END

    async with _backend(script) as (backend, _):
        text, finish = await _all(backend)
    assert text == "Hello there"
    assert finish == Finish(reason="stop", usage=Usage(prompt_tokens=7, completion_tokens=2))


async def test_connections_are_kept_and_used_again() -> None:
    async with _backend(_stream(*WHOLE, DONE)) as (backend, upstream):
        for _ in range(5):
            await _all(backend)
        assert len(upstream.requests) == 5
        assert upstream.connections == 1


async def test_a_prompt_of_megabytes_arrives_whole() -> None:
    prompt = "long é " * 400_000
    generation = CHAT.model_copy(update={"messages": (ChatMessage(role="user", content=prompt),)})
    async with _backend(_stream(*WHOLE, DONE)) as (backend, upstream):
        await _all(backend, generation)
        assert upstream.requests[0].body["messages"][0]["content"] == prompt


async def test_no_more_connections_are_open_than_there_are_slots() -> None:
    async with _backend(_stream(*WHOLE, DONE)) as (backend, upstream):
        await asyncio.gather(*(_all(backend) for _ in range(20)))
        assert len(upstream.requests) == 20
        assert upstream.connections <= 4


async def test_chunks_are_counted_and_marked_when_the_upstream_tells_no_usage() -> None:
    async with _backend(
        _stream(event(delta("a")), event(delta("b")), event(delta(None, "length")), DONE)
    ) as (
        backend,
        _,
    ):
        _, finish = await _all(backend)
    assert finish == Finish(reason="length", usage=Usage(completion_tokens=2, estimated=True))


async def test_a_stream_without_its_end_marker_is_whole_if_the_finish_reason_came() -> None:
    async with _backend(_stream(*WHOLE)) as (backend, _):
        assert (await _all(backend))[0] == "Hello there"


async def test_empty_choices_comments_and_thoughts_add_no_text() -> None:
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]}
    other = {"choices": [{"index": 1, "delta": {"content": "not asked for"}}]}
    script = _stream(b": ping\n\n", event({"choices": []}), event(thought), event(other), *WHOLE, DONE)
    async with _backend(script) as (backend, _):
        pieces = [o async for o in backend.generate(CHAT) if isinstance(o, Piece)]
    assert [piece.text for piece in pieces] == ["", "Hello", " there"]


async def test_a_server_that_cannot_stream_is_understood() -> None:
    body = {"choices": [{"index": 0, "message": {"content": "at once"}, "finish_reason": "stop"}]}
    async with _backend(_once(response(200, body))) as (backend, _):
        assert (await _all(backend))[0] == "at once"


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([b"data: {nonsense\n\n"], "not JSON: {nonsense"),
        ([b"data: \xff\xfe\n\n"], "not JSON"),
        ([b"data: {} {}\n\n"], "not JSON"),
        ([event([1])], "not a JSON object"),
        ([event({"choices": ["x"]})], "cannot be read"),
        ([event({"choices": [{"delta": {"content": 5}}]})], "cannot be read"),
        ([event(delta("a")), event({"error": {"message": "out of memory"}})], "out of memory"),
        ([b"data: " + b"x" * 5000], "max_line_bytes 2048"),
        ([DONE], "without an answer"),
        ([event(USAGE), DONE], "without an answer"),
        ([event(delta("a"))], "cut the stream after 1 tokens"),
    ],
)
async def test_a_malformed_stream_fails_retryably(events: list[bytes], text: str) -> None:
    error = await _fails(BackendFailed, text, _stream(*events), max_line_bytes=2048)
    assert error.retryable


async def test_an_error_in_a_stream_that_blames_the_request_is_not_retried() -> None:
    bad = event({"error": {"code": 400, "message": "bad schema"}})
    error = await _fails(InvalidRequest, "bad schema", _stream(bad))
    assert not error.retryable


async def test_a_connection_cut_in_the_middle_fails_retryably() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD + chunk(event(delta("a")))
        raise Cut

    assert (await _fails(BackendFailed, "cut the answer", script)).retryable


async def test_a_cut_after_the_whole_answer_is_no_failure() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD + chunk(b"".join(WHOLE))
        raise Cut

    async with _backend(script) as (backend, _):
        assert (await _all(backend))[0] == "Hello there"


async def test_a_connection_closed_before_any_answer_is_tried_once_more() -> None:
    tries = 0

    async def script(request: Request) -> AsyncIterator[bytes]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Cut
        async for part in _stream(*WHOLE, DONE)(request):
            yield part

    async with _backend(script) as (backend, upstream):
        assert (await _all(backend))[0] == "Hello there"
        assert len(upstream.requests) == 2


async def test_a_connection_closed_twice_before_any_answer_fails() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        raise Cut
        yield b""

    await _fails(BackendFailed, "closed the connection", script)


async def test_silence_before_the_first_byte_has_its_own_limit() -> None:
    await _fails(BackendFailed, "first_byte_timeout_s 0.1", lambda _: _hang(b""), first_byte_timeout_s=0.1)


async def test_pings_do_not_prolong_the_wait_for_the_first_text() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD
        while True:
            yield chunk(b": ping\n\n") + chunk(event(delta(None)))
            await asyncio.sleep(0.005)

    await _fails(BackendFailed, "first_byte_timeout_s 0.1", script, first_byte_timeout_s=0.1)


async def test_a_stall_in_the_middle_has_its_own_limit() -> None:
    text = STREAM_HEAD + chunk(event(delta("a")))
    await _fails(BackendFailed, "stalled.*chunk_timeout_s 0.1", lambda _: _hang(text), chunk_timeout_s=0.1)


async def test_a_slow_reader_is_no_stall_of_the_upstream() -> None:
    async with _backend(_stream(*WHOLE, DONE), chunk_timeout_s=0.05) as (backend, _):
        text = ""
        async for output in backend.generate(CHAT):
            if isinstance(output, Piece):
                text += output.text
                await asyncio.sleep(0.06)  # longer than the limit: the slowness is what is tested
    assert text == "Hello there"


async def test_a_connect_that_hangs_has_its_own_limit() -> None:
    with port_that_never_accepts() as port:
        backend = OpenAIBackend(
            OpenAISettings(base_url=f"http://127.0.0.1:{port}", connect_timeout_s=0.1, models={"m": "m"})
        )
        with pytest.raises(Unavailable, match=rf"http://127.0.0.1:{port}/v1/models .*connect_timeout_s 0.1"):
            await backend.start()


async def test_an_upstream_that_is_not_there_is_named_at_the_start(unused_tcp_port: int) -> None:
    backend = OpenAIBackend(OpenAISettings(base_url=f"http://127.0.0.1:{unused_tcp_port}"))
    with pytest.raises(Unavailable, match=f"http://127.0.0.1:{unused_tcp_port}/v1/models cannot be reached"):
        await backend.start()


@pytest.mark.parametrize(("status", "kind"), [(429, NodeBusy), (503, Unavailable)])
async def test_after_retry_after_the_upstream_is_left_alone(status: int, kind: type[OrchestraError]) -> None:
    script = _once(response(status, {"error": {"message": "busy"}}, Retry_After="30"))
    async with _backend(script) as (backend, upstream):
        with pytest.raises(kind, match="busy") as first:
            await _all(backend)
        with pytest.raises(kind, match="asked to be left alone") as second:
            await _all(backend)
        assert first.value.retry_after_s == 30
        assert second.value.retry_after_s is not None
        assert 25 < second.value.retry_after_s <= 30
        assert len(upstream.requests) == 1


async def test_a_retry_after_that_has_passed_lets_generations_through() -> None:
    first = True

    async def script(request: Request) -> AsyncIterator[bytes]:
        nonlocal first
        if first:
            first = False
            yield response(429, {}, retry_after_ms="20")
            return
        async for part in _stream(*WHOLE, DONE)(request):
            yield part

    async with _backend(script) as (backend, _):
        with pytest.raises(NodeBusy):
            await _all(backend)
        async with asyncio.timeout(5):
            while True:
                try:
                    text, _ = await _all(backend)
                    break
                except NodeBusy as refused:
                    await asyncio.sleep(refused.retry_after_s or 0)
    assert text == "Hello there"


async def test_an_upstream_error_is_told_and_the_next_generation_works() -> None:
    answers = [_once(response(500, {"error": {"message": "boom"}})), _stream(*WHOLE, DONE)]

    def script(request: Request) -> AsyncIterator[bytes]:
        return answers.pop(0)(request)

    async with _backend(script) as (backend, _):
        with pytest.raises(BackendFailed, match="answered 500: boom"):
            await _all(backend)
        assert (await _all(backend))[0] == "Hello there"


async def test_an_error_body_without_end_does_not_hold_the_answer_up() -> None:
    head = b"HTTP/1.1 500 No\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100_000
    error = await _fails(BackendFailed, "answered 500", lambda _: _hang(head))
    assert len(error.message) < 400


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_what_is_no_http_fails(answer: bytes) -> None:
    await _fails(BackendFailed, "no HTTP", _once(answer))


@pytest.mark.parametrize("cancel", [True, False])
async def test_leaving_a_generation_closes_its_connection(cancel: bool) -> None:
    text = STREAM_HEAD + chunk(event(delta("a")))
    async with _backend(lambda _: _hang(text)) as (backend, upstream):
        got = asyncio.Event()

        async def listen() -> None:
            stream = backend.generate(CHAT)
            async for _ in stream:
                got.set()
                if not cancel:
                    break
            await stream.aclose()

        listening = asyncio.create_task(listen())
        await asyncio.wait_for(got.wait(), 5)
        if cancel:
            listening.cancel()
        await asyncio.wait([listening])
        await asyncio.wait_for(upstream.gone.wait(), 5)


async def test_the_key_is_sent_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ORCHESTRA_TEST_KEY", "sk-very-secret")
    caplog.set_level("DEBUG")
    script = _once(response(401, {"error": {"message": "Incorrect API key: sk-very-secret"}}))
    async with _backend(script, api_key_env="ORCHESTRA_TEST_KEY") as (backend, upstream):
        with pytest.raises(BackendFailed, match="ORCHESTRA_TEST_KEY") as caught:
            await _all(backend)
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
    async with _backend(_stream(*WHOLE, DONE), models={"fast": MODEL}) as (backend, upstream):
        assert [card.name for card in backend.models] == ["fast"]
        assert backend.models[0].context_tokens == 4096
        await _all(backend, CHAT.model_copy(update={"model": "fast"}))
        assert upstream.requests[0].body["model"] == MODEL
        with pytest.raises(UnknownModel, match="known models: fast"):
            await _all(backend)


async def test_embeddings_as_numbers_and_out_of_order_are_put_right() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        data = [{"index": i, "embedding": [float(text), 0.5]} for i, text in enumerate(request.body["input"])]
        yield response(200, {"data": data[::-1], "usage": {"prompt_tokens": len(data)}})

    inputs = tuple(str(number) for number in range(5))
    generation = Generation(id="a.1", kind="embedding", model=MODEL, inputs=inputs)
    async with _backend(script, embedding_batch=2) as (backend, upstream):
        outputs = [output async for output in backend.generate(generation)]
        assert len(upstream.requests) == 3
    batches = [output for output in outputs if isinstance(output, Embeddings)]
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
    generation = Generation(id="a.1", kind="embedding", model=MODEL, inputs=("a",))
    async with _backend(_once(response(200, body))) as (backend, _):
        with pytest.raises(BackendFailed, match="cannot be read"):
            await _all(backend, generation)


async def test_an_answer_over_the_limit_is_not_read_to_its_end() -> None:
    body = json.dumps({"data": "x" * 50_000}).encode()
    generation = Generation(id="a.1", kind="embedding", model=MODEL, inputs=("a",))
    async with _backend(_once(response(200, body)), max_answer_bytes=4096) as (backend, _):
        with pytest.raises(BackendFailed, match="max_answer_bytes 4096"):
            await _all(backend, generation)
