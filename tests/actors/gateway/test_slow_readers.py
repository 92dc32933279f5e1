"""Clients that ask and then do not read: the work ends, and what it held is free for others."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.gateway.settings import GatewaySettings
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually

SEND_S = 1.0
IN_FLIGHT = 10
SETTINGS = GatewaySettings(
    http="127.0.0.1:0",
    max_in_flight=IN_FLIGHT,
    send_timeout_s=SEND_S,
    stream_buffer_bytes=32 * 1024,
    keep_alive_s=0.2,
)
ENDLESS = 200_000
"""Tokens: more than all buffers of the operating system take."""
LONG_WORDS = ("w" * 2000 + " ") * 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`fast` fills every buffer, `paced` none within its deadline."""
    backends = [
        (
            "fast",
            EchoBackend(EchoSettings(models=("fast",), context_tokens=ENDLESS + 1000, slots=16, speed=500)),
        ),
        ("paced", EchoBackend(EchoSettings(models=("paced",), speed=20, slots=16))),
    ]
    with running_cluster(backends, gateway=SETTINGS) as running:
        yield running


@asynccontextmanager
async def deaf(
    cluster: Cluster, model: str, *, stream: bool = True, tokens: int = ENDLESS, timeout_s: float = 60
) -> AsyncIterator[socket.socket]:
    """A client that has asked for a long answer and reads nothing of it."""
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": LONG_WORDS}],
            "stream": stream,
            "max_tokens": tokens,
        }
    ).encode()
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"host: x", b"content-length: %d" % len(body)]
    lines += [b"connection: close", b"x-request-timeout: %.1f" % timeout_s]
    host, port = cluster.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (host, int(port)))
        await loop.sock_sendall(client, b"\r\n".join([*lines, b"", body]))
        yield client


async def rest_of(client: socket.socket) -> bytes:
    """What was sent until the gateway hung up."""
    said = b""
    async with asyncio.timeout(30):
        while part := await asyncio.get_running_loop().sock_recv(client, 2**20):
            said += part
    return said


async def ask(cluster: Cluster) -> int:
    body: dict[str, Any] = {"model": "paced", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{cluster.base_url}/chat/completions", json=body) as answer:
            return answer.status


async def test_unread_streams_end_with_a_reason_and_free_their_permits(cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(deaf(cluster, "fast")) for _ in range(IN_FLIGHT)]
        await eventually(lambda: cluster.running.gateway.in_flight == IN_FLIGHT)
        await eventually(lambda: cluster.running.gateway.in_flight == 0)
        reading = asyncio.ensure_future(rest_of(clients[0]))
        assert await ask(cluster) == 200
        said = await reading
        await eventually(lambda: cluster.running_on("fast") == 0)
    last = json.loads(said.split(b"data: ")[-1].split(b"\r\n")[0])
    assert last["error"]["code"] == "slow_reader"
    assert "stream_buffer_bytes 32768" in last["error"]["message"]


async def test_the_deadline_ends_the_work_of_a_client_that_does_not_read(cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(IN_FLIGHT):
            await stack.enter_async_context(deaf(cluster, "paced", timeout_s=1))
        await eventually(lambda: cluster.running.gateway.in_flight == IN_FLIGHT)
        await eventually(lambda: cluster.running.gateway.in_flight == 0)
        assert await ask(cluster) == 200
    await eventually(lambda: cluster.running_on("paced") == 0)


async def test_a_client_that_reads_slowly_gets_all_of_its_answer(cluster: Cluster) -> None:
    body = {
        "model": "fast",
        "messages": [{"role": "user", "content": LONG_WORDS}],
        "stream": True,
        "max_tokens": 300,
    }
    async with aiohttp.ClientSession(read_bufsize=2**12) as session:
        async with session.post(f"{cluster.base_url}/chat/completions", json=body) as answer:
            said = b""
            async for part in answer.content.iter_chunked(2**14):
                said += part
    assert said.endswith(b"data: [DONE]\n\n")
    assert b'"error"' not in said


async def test_a_connection_with_an_unread_response_is_closed(cluster: Cluster) -> None:
    async with deaf(cluster, "fast"):
        connections = cluster.running.connections
        await eventually(lambda: len(connections) > 0)
        await eventually(lambda: len(connections) == 0)


async def test_an_unread_complete_response_holds_no_permit_and_can_be_read_later(
    cluster: Cluster,
) -> None:
    async with deaf(cluster, "fast", stream=False, tokens=300) as client:
        await eventually(lambda: cluster.running.gateway.in_flight == 1)
        await eventually(lambda: cluster.running.gateway.in_flight == 0)
        head, _, body = (await rest_of(client)).partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["usage"]["completion_tokens"] == 300


async def test_the_deadline_ends_the_stream_of_a_nats_caller_that_does_not_read(cluster: Cluster) -> None:
    body = json.dumps(
        {
            "model": "fast",
            "messages": [{"role": "user", "content": LONG_WORDS}],
            "stream": True,
            "max_tokens": ENDLESS,
        }
    ).encode()
    head = f"NATS/1.0\r\nOrchestra-Deadline: {time.time() + 1:.3f}\r\n\r\n".encode()
    sizes = b"%d %d" % (len(head), len(head) + len(body))
    said = b'CONNECT {"verbose":false,"headers":true}\r\nSUB deaf 1\r\nHPUB orchestra.chat deaf ' + sizes
    _, writer = await asyncio.open_connection("127.0.0.1", cluster.nats.port, limit=1024)
    writer.write(said + b"\r\n" + head + body + b"\r\n")
    await eventually(lambda: cluster.running.gateway.in_flight == 1)
    await eventually(lambda: cluster.running.gateway.in_flight == 0)
    await eventually(lambda: cluster.running_on("fast") == 0)
    writer.close()
