"""Limits of time, size and number, clients that leave, and the end of a gateway."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from openai import APIStatusError, OpenAI, RateLimitError

from actors.backends.echo import EchoBackend, EchoSettings
from actors.gateway.errors import HttpPortBusy
from actors.gateway.http import HttpServer
from actors.gateway.settings import GatewaySettings
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually

CHAT = "/v1/chat/completions"
LIMITS = GatewaySettings(
    http="127.0.0.1:0",
    max_body_bytes=64 * 1024,
    max_in_flight=2,
    body_timeout_s=0.4,
    keep_alive_s=0.2,
    drain_s=5,
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`slow` says 20 tokens a second, `stuck` one and then nothing, `late` begins after a second."""
    backends = [
        ("slow", EchoBackend(EchoSettings(models=("slow",), speed=20))),
        ("stuck", EchoBackend(EchoSettings(models=("stuck",), stall_after=1))),
        ("late", EchoBackend(EchoSettings(models=("late",), first_token_s=1))),
    ]
    with running_cluster(backends, gateway=LIMITS) as running:
        yield running


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "a b c d"}]} | more


ENDLESS = {"max_tokens": 2000}


async def send_raw(cluster: Cluster, *parts: bytes) -> tuple[bytes, asyncio.StreamWriter]:
    """Send bytes as they are; gives the head of the answer. Close the writer."""
    host, port = cluster.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for part in parts:
        writer.write(part)
        await writer.drain()
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    return head, writer


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_sent(cluster: Cluster) -> None:
    head, writer = await send_raw(
        cluster, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n"
    )
    writer.close()
    assert head.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in head


async def test_a_body_of_unknown_length_is_refused_once_it_passes_the_limit(cluster: Cluster) -> None:
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    head, writer = await send_raw(
        cluster,
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        *[chunk] * 4,
    )
    writer.close()
    assert head.startswith(b"HTTP/1.1 413")


async def test_a_client_that_sends_a_large_body_whole_still_reads_the_413(cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.post(cluster.url + CHAT, data=io.BytesIO(b"x" * 3_000_000)) as answer:
            error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (413, "payload_too_large")
    assert "3000000 bytes exceeds gateway.max_body_bytes 65536" in error["message"]


async def test_a_body_that_does_not_arrive_is_given_up(cluster: Cluster) -> None:
    head, writer = await send_raw(
        cluster, b'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{"model"'
    )
    writer.close()
    assert head.startswith(b"HTTP/1.1 408")


def test_one_request_too_many_is_refused_with_when_to_come_back(cluster: Cluster) -> None:
    with OpenAI(base_url=cluster.base_url, api_key="none", max_retries=0) as client:
        messages = chat("slow")["messages"]
        streams = [
            client.chat.completions.create(model="slow", messages=messages, stream=True, max_tokens=2000)
            for _ in range(2)
        ]
        for stream in streams:
            next(iter(stream))
        with pytest.raises(RateLimitError, match="max_in_flight") as caught:
            client.chat.completions.create(model="slow", messages=messages)
        assert caught.value.response.headers["Retry-After"] == "1"
        for stream in streams:
            stream.close()
    cluster.wait(lambda: cluster.running.gateway.in_flight == 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_the_node(cluster: Cluster, stream: bool) -> None:
    async with aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(
            session.post(cluster.url + CHAT, json=chat("slow", stream=stream, **ENDLESS))
        )
        await eventually(lambda: cluster.running_on("slow") == 1)
        if stream:
            answer = await asking
            assert (await answer.content.readline()).startswith(b"data: ")
            answer.close()
        else:
            asking.cancel()
    await eventually(lambda: cluster.running_on("slow") == 0)
    assert cluster.running.gateway.in_flight == 0


async def test_a_deadline_of_the_caller_holds_and_frees_the_node(cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as session:
        headers = {"X-Request-Timeout": "0.5"}
        async with session.post(cluster.url + CHAT, json=chat("stuck"), headers=headers) as answer:
            error = (await answer.json())["error"]
    assert (answer.status, error["type"], error["code"]) == (504, "server_error", "deadline_exceeded")
    await eventually(lambda: cluster.running_on("stuck") == 0)


async def test_an_error_after_a_stream_began_is_its_last_event(cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as session:
        headers, body = {"X-Request-Timeout": "0.7"}, chat("stuck", stream=True)
        async with session.post(cluster.url + CHAT, json=body, headers=headers) as answer:
            lines = [line async for line in answer.content if line.startswith(b"data: ")]
    assert answer.status == 200
    assert json.loads(lines[0][6:])["choices"][0]["delta"]["content"] == "a"
    assert json.loads(lines[-1][6:])["error"]["code"] == "deadline_exceeded"


def test_the_openai_client_raises_an_error_that_comes_within_a_stream(cluster: Cluster) -> None:
    with OpenAI(base_url=cluster.base_url, api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="stuck",
            messages=chat("stuck")["messages"],
            stream=True,
            extra_headers={"X-Request-Timeout": "0.7"},
        )
        with pytest.raises(Exception, match="no complete answer") as caught:
            list(stream)
    assert type(caught.value).__name__ == "APIError"
    assert not isinstance(caught.value, APIStatusError)


async def test_a_stream_that_is_silent_gets_comments_before_and_after_its_first_event(
    cluster: Cluster,
) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.post(cluster.url + CHAT, json=chat("late", stream=True)) as answer:
            lines = [line.strip() async for line in answer.content if line.strip()]
    assert lines[0] == b": keep-alive"
    assert lines[-1] == b"data: [DONE]"
    texts = [
        json.loads(line[6:])["choices"][0]["delta"].get("content") for line in lines if line[6:7] == b"{"
    ]
    assert "".join(text or "" for text in texts) == "a b c d"


async def test_stopping_lets_a_stream_finish_and_takes_no_new_one() -> None:
    backend = EchoBackend(EchoSettings(models=("slow",), speed=20))
    with running_cluster([("slow", backend)], gateway=LIMITS) as own:
        async with aiohttp.ClientSession() as session:
            body = chat("slow", stream=True, max_tokens=20)
            async with session.post(own.url + CHAT, json=body) as answer:
                assert (await answer.content.readline()).startswith(b"data: ")
                own.stop_gateway()
                await eventually(lambda: own.running.gateway.draining)
                await until_refused(session, own.url)
                rest = await answer.content.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert b'"finish_reason":"length"' in rest


async def test_a_stream_that_outlasts_the_drain_ends_with_an_error_that_says_why() -> None:
    backend = EchoBackend(EchoSettings(models=("stuck",), stall_after=1))
    with running_cluster([("stuck", backend)], gateway=LIMITS.model_copy(update={"drain_s": 0.2})) as own:
        async with aiohttp.ClientSession() as session:
            async with session.post(own.url + CHAT, json=chat("stuck", stream=True)) as answer:
                assert (await answer.content.readline()).startswith(b"data: ")
                own.stop_gateway()
                lines = [line async for line in answer.content if line.startswith(b"data: ")]
        assert json.loads(lines[-1][6:])["error"]["message"] == "shutting down"
        await eventually(lambda: own.running_on("stuck") == 0)


async def test_a_connection_that_never_asks_is_closed() -> None:
    with running_cluster([], gateway=LIMITS.model_copy(update={"idle_connection_s": 1})) as own:
        host, port = own.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_a_busy_port_is_named_with_the_way_out(cluster: Cluster) -> None:
    address = cluster.url.removeprefix("http://")
    with pytest.raises(HttpPortBusy, match=rf"cannot listen on {address}.*--http 127\.0\.0\.1:PORT"):
        HttpServer(GatewaySettings(http=address))


async def until_refused(session: aiohttp.ClientSession, url: str) -> None:
    """Connect anew until nobody listens; a connection may still be cut while the port closes."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with session.get(url + "/healthz", headers={"connection": "close"}):
                    pass
            except aiohttp.ClientConnectorError:
                return
            except aiohttp.ClientConnectionError:
                continue


async def test_the_longest_idle_connection_makes_room_for_a_new_one_and_busy_ones_do_not() -> None:
    ask = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    with running_cluster([], gateway=LIMITS.model_copy(update={"max_connections": 3})) as own:
        host, port = own.url.removeprefix("http://").split(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        for reader, writer in idle:
            writer.write(ask)
            await asyncio.wait_for(reader.readuntil(b"}"), 30)
        head, newest = await send_raw(own, ask)
        assert head.startswith(b"HTTP/1.1 200")
        assert await asyncio.wait_for(idle[0][0].read(), 10) == b""
        for writer in (idle[1][1], idle[2][1], newest):
            writer.write(ask[:-2])  # and so the request has begun
        await eventually(lambda: not own.running.connections.idle)
        head, refused = await send_raw(own, b"")
        assert head.startswith(b"HTTP/1.1 503")
        for writer in (*(writer for _, writer in idle), newest, refused):
            writer.close()
