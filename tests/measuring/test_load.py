"""The measuring tools measure: a generator that miscounts would make every comparison a fiction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.bench.load import answered, chat_body, measure
from tests.fixtures.upstream import Request, faulty_upstream, response
from tests.fixtures.zero_upstream import zero_upstream


def test_an_answer_is_whole_at_its_last_byte() -> None:
    sized = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"
    chunked = b"HTTP/1.1 429 Slow\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
    for data, status in ((sized, 200), (chunked, 429)):
        assert [answered(data[:end]) for end in range(len(data))] == [None] * len(data)
        assert answered(data) == status


@pytest.mark.parametrize("stream", [False, True])
def test_the_generator_counts_what_the_upstream_answers(stream: bool) -> None:
    with zero_upstream(chunks=3) as upstream:
        url = f"{upstream}/chat/completions"
        load = measure(url, model="bench", at_once=4, seconds=0.3, stream=stream)
    assert load.errors == 0
    assert load.requests > 20
    assert 0 < load.p50_ms <= load.p99_ms
    assert load.seconds >= 0.3


async def test_errors_are_told_and_not_measured() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        yield response(500, {"error": "x"})

    async with faulty_upstream(script) as upstream:
        with pytest.raises(RuntimeError, match=r"HTTP/1.1 500"):
            await asyncio.to_thread(
                measure, f"{upstream.base_url}/chat/completions", model="m", at_once=1, seconds=0.2
            )
        assert upstream.requests[0].body["model"] == "m"


def test_streaming_is_asked_for_when_it_is_measured() -> None:
    assert b'"stream": true' in chat_body("m", stream=True)
    assert b"stream" not in chat_body("m")
