"""The OpenAI backend before upstreams that misbehave."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.backends.openai import OpenAIBackend, OpenAISettings
from orchestration.errors import (
    BackendFailed,
    InvalidRequest,
    OrchestraError,
    RateLimited,
    ServerBusy,
    Unavailable,
)
from orchestration.messages import TextDelta
from tests.fixtures.scripted import CHAT, DONE, WHOLE, backend_before, hang, once, stream, whole
from tests.fixtures.upstream import (
    STREAM_END,
    STREAM_HEAD,
    USAGE,
    Cut,
    Request,
    Script,
    chunk,
    delta,
    event,
    port_that_never_accepts,
    response,
)


async def _fails(kind: type[OrchestraError], text: str, script: Script, **settings: Any) -> OrchestraError:
    async with backend_before(script, **settings) as (backend, _):
        with pytest.raises(kind, match=text) as caught:
            await whole(backend)
    return caught.value


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
    error = await _fails(BackendFailed, text, stream(*events), max_line_bytes=2048)
    assert error.retryable


async def test_an_error_in_a_stream_that_blames_the_request_is_not_retried() -> None:
    bad = event({"error": {"code": 400, "message": "bad schema"}})
    error = await _fails(InvalidRequest, "bad schema", stream(bad))
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

    async with backend_before(script) as (backend, _):
        assert (await whole(backend))[0] == "Hello there"


async def test_a_connection_closed_before_any_answer_is_tried_once_more() -> None:
    tries = 0

    async def script(request: Request) -> AsyncIterator[bytes]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Cut
        async for part in stream(*WHOLE, DONE)(request):
            yield part

    async with backend_before(script) as (backend, upstream):
        assert (await whole(backend))[0] == "Hello there"
        assert len(upstream.requests) == 2


async def test_a_connection_closed_twice_before_any_answer_fails() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        raise Cut
        yield b""

    await _fails(BackendFailed, "closed the connection", script)


async def test_silence_before_the_first_byte_has_its_own_limit() -> None:
    await _fails(
        BackendFailed, r"0\.1 s \(first_byte_timeout_s\)", lambda _: hang(b""), first_byte_timeout_s=0.1
    )


@pytest.mark.parametrize("ping", [b": ping\n\n", b":", event(delta(None))])
async def test_any_byte_before_or_between_texts_is_life(ping: bytes) -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD
        for text in WHOLE[:2]:
            for _ in range(12):
                yield chunk(ping)
                await asyncio.sleep(0.05)  # longer than the limit in all: the quiet is what is tested
            yield chunk(b"\n\n" + text)
        yield chunk(b"".join([*WHOLE[2:], DONE])) + STREAM_END

    async with backend_before(script, first_byte_timeout_s=0.4, chunk_timeout_s=0.4) as (backend, _):
        assert (await whole(backend))[0] == "Hello there"


async def test_silence_after_the_whole_answer_is_its_end() -> None:
    complete = STREAM_HEAD + chunk(event(delta("Hello there")) + event(delta(None, "stop")))
    async with backend_before(lambda _: hang(complete), tail_timeout_s=0.05) as (backend, _):
        assert (await whole(backend))[0] == "Hello there"


async def test_a_stall_in_the_middle_has_its_own_limit() -> None:
    text = STREAM_HEAD + chunk(event(delta("a")))
    await _fails(
        BackendFailed, r"stalled.*0\.1 s \(chunk_timeout_s\)", lambda _: hang(text), chunk_timeout_s=0.1
    )


async def test_a_slow_reader_is_no_stall_of_the_upstream() -> None:
    async with backend_before(stream(*WHOLE, DONE), chunk_timeout_s=0.05) as (backend, _):
        text = ""
        async for output in backend.generate(CHAT):
            if isinstance(output, TextDelta):
                text += output.text
                await asyncio.sleep(0.06)  # longer than the limit: the slowness is what is tested
    assert text == "Hello there"


async def test_a_connect_that_hangs_has_its_own_limit() -> None:
    with port_that_never_accepts() as port:
        backend = OpenAIBackend(
            OpenAISettings(base_url=f"http://127.0.0.1:{port}", connect_timeout_s=0.1, models={"m": "m"})
        )
        with pytest.raises(
            Unavailable, match=rf"http://127.0.0.1:{port}/v1/models within 0.1 s .connect_timeout_s"
        ):
            await backend.start()


async def test_an_upstream_that_is_not_there_is_named_at_the_start(unused_tcp_port: int) -> None:
    backend = OpenAIBackend(OpenAISettings(base_url=f"http://127.0.0.1:{unused_tcp_port}"))
    with pytest.raises(Unavailable, match=f"cannot reach http://127.0.0.1:{unused_tcp_port}/v1/models"):
        await backend.start()


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (503, ServerBusy)])
async def test_after_retry_after_the_upstream_is_left_alone(status: int, kind: type[OrchestraError]) -> None:
    script = once(response(status, {"error": {"message": "busy"}}, Retry_After="30"))
    async with backend_before(script) as (backend, upstream):
        with pytest.raises(kind, match="busy") as first:
            await whole(backend)
        with pytest.raises(kind, match="busy") as second:
            await whole(backend)
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
        async for part in stream(*WHOLE, DONE)(request):
            yield part

    async with backend_before(script) as (backend, _):
        with pytest.raises(RateLimited):
            await whole(backend)
        async with asyncio.timeout(30):
            while True:
                try:
                    text, _ = await whole(backend)
                    break
                except RateLimited as refused:
                    await asyncio.sleep(refused.retry_after_s or 0)
    assert text == "Hello there"


async def test_an_upstream_error_is_told_and_the_next_generation_works() -> None:
    answers = [once(response(500, {"error": {"message": "boom"}})), stream(*WHOLE, DONE)]

    def script(request: Request) -> AsyncIterator[bytes]:
        return answers.pop(0)(request)

    async with backend_before(script) as (backend, _):
        with pytest.raises(BackendFailed, match="answered 500: boom"):
            await whole(backend)
        assert (await whole(backend))[0] == "Hello there"


async def test_an_error_body_without_end_does_not_hold_the_answer_up() -> None:
    head = b"HTTP/1.1 500 No\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100_000
    error = await _fails(BackendFailed, "answered 500", lambda _: hang(head))
    assert len(error.message) < 400


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_what_is_no_http_fails(answer: bytes) -> None:
    await _fails(BackendFailed, "sent an invalid HTTP response", once(answer))


@pytest.mark.parametrize("cancel", [True, False])
async def test_leaving_a_generation_closes_its_connection(cancel: bool) -> None:
    text = STREAM_HEAD + chunk(event(delta("a")))
    async with backend_before(lambda _: hang(text)) as (backend, upstream):
        got = asyncio.Event()

        async def listen() -> None:
            stream = backend.generate(CHAT)
            async for _ in stream:
                got.set()
                if not cancel:
                    break
            await stream.aclose()

        listening = asyncio.create_task(listen())
        await asyncio.wait_for(got.wait(), 30)
        if cancel:
            listening.cancel()
        await asyncio.wait([listening])
        await asyncio.wait_for(upstream.gone.wait(), 30)


@pytest.mark.parametrize(
    ("texts", "read"),
    [
        (["a\ud83d", "\ude00b"], "a😀b"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["\ude00a\ud83d\ud83d", "\ude00"], "\ufffda\ufffd😀"),
    ],
)
async def test_halves_of_a_character_are_joined_and_one_alone_is_replaced(
    texts: list[str], read: str
) -> None:
    async with backend_before(stream(*(event(delta(text)) for text in texts), event(delta("", "stop")))) as (
        backend,
        _,
    ):
        text, _ = await whole(backend)
    assert text == read


async def test_an_error_with_half_a_character_can_be_told() -> None:
    error = await _fails(BackendFailed, "no", once(response(500, {"error": {"message": "no \ud83d"}})))
    assert error.body().model_dump_json()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_an_answer_that_a_proxy_compressed_is_read(encoding: str) -> None:
    packed = (gzip.compress if encoding == "gzip" else zlib.compress)(b"".join(WHOLE))
    answer = response(200, packed, Content_Type="text/event-stream", Content_Encoding=encoding)
    async with backend_before(once(answer)) as (backend, _):
        text, _ = await whole(backend)
    assert text == "Hello there"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (response(200, b"<h1>Log in</h1>", Content_Type="text/html"), "a web page: <h1>Log in</h1>"),
        (response(302, b"", Location="https://login/"), "302 and points to https://login/"),
    ],
)
async def test_an_answer_of_something_else_than_the_api_asks_for_the_base_url(
    answer: bytes, text: str
) -> None:
    error = await _fails(BackendFailed, text, once(answer))
    assert "check base_url http" in error.message
