"""What one connection, or many from one address, may take of a gateway before anybody is asked for a key."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import psutil
import pytest

from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import Process, orchestra

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
HEAD_S = 1.0
PER_ADDRESS = 400
BODIES_BYTES = 60_000_000
MOST_KEPT_MB = 15
MOST_GROWTH_MB = 40
"""What the gateway may hold for one hostile connection, with what Python and the allocator keep of it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway in a process of its own."""

    process: Process
    port: int

    @property
    def rss_mb(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def answers(self, *parts: bytes) -> bytes:
        """Send each part as a packet; what came until the gateway hung up."""
        async with self.connection() as (reader, writer):
            sending = asyncio.ensure_future(send(writer, parts))
            said = b""
            async with asyncio.timeout(30):
                with suppress(ConnectionResetError):
                    while more := await reader.read(65_536):
                        said += more
            sending.cancel()
        return said

    async def is_well(self) -> bool:
        """Whether others are answered."""
        async with self.connection() as (reader, writer):
            writer.write(GET)
            async with asyncio.timeout(30):
                said = await reader.readuntil(b"}")
            return said.startswith(b"HTTP/1.1 200")


async def send(writer: asyncio.StreamWriter, parts: Iterable[bytes]) -> None:
    """Send all, waiting for the gateway to take it, until it hangs up."""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
    except OSError:
        pass


@pytest.fixture(scope="module")
def target(nats_server: RunningNats) -> Iterator[Target]:
    with orchestra(
        *("gateway", "--nats", nats_server.url, "--http", "127.0.0.1:0"),
        before=(
            "sh",
            "-c",
            f'ulimit -Sn {PER_ADDRESS // 2}; exec "$@"',
            "sh",
        ),  # open files: fewer than allowed
        ORCHESTRA_GATEWAY__HEAD_TIMEOUT_S=str(HEAD_S),
        ORCHESTRA_GATEWAY__SEND_TIMEOUT_S="0.5",
        ORCHESTRA_GATEWAY__BODY_TIMEOUT_S="0.3",
        ORCHESTRA_GATEWAY__MAX_BODIES_BYTES=str(BODIES_BYTES),
        ORCHESTRA_GATEWAY__MAX_CONNECTIONS_PER_ADDRESS=str(PER_ADDRESS),
    ) as process:
        line = process.wait_for("http://127.0.0.1:")
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found is not None
        yield Target(process, int(found[1]))
        assert "Traceback" not in process.said


ENDLESS = {
    "headers": (
        [b"GET / HTTP/1.1\r\n"],
        b"".join(b"x-%d: %s\r\n" % (i, b"a" * 2000) for i in range(32)),
        b"431",
    ),
    "one header": ([b"GET / HTTP/1.1\r\nx: "], b"a" * 65_536, b"431"),
    "the path": ([b"GET /"], b"a" * 65_536, b"414"),
    "empty lines": ([b""], b"\r\n" * 32_768, b"431"),
    "the method": ([b""], b"A" * 65_536, b"400"),
    "a trailer": (
        [b"POST /v1/embeddings HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx: "],
        b"a" * 65_536,
        b"408",
    ),
    "a chunk's extension": (
        [b"POST /v1/embeddings HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;x="],
        b"a" * 65_536,
        b"408",
    ),
    "a chunked body": (
        [b"POST /v1/embeddings HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"],
        b"10000\r\n" + b"a" * 65_536 + b"\r\n",
        b"413",
    ),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_a_request_without_end_is_refused_and_holds_no_memory(target: Target, what: str) -> None:
    first, block, status = ENDLESS[what]
    before = target.rss_mb
    said = await target.answers(*first, *[block] * (60_000_000 // len(block)))
    assert target.rss_mb - before < MOST_GROWTH_MB
    assert said.startswith(b"HTTP/1.1 " + status), said
    assert b"connection: close" in said
    assert await target.is_well()


async def test_pipelined_requests_with_unread_responses_are_not_read(target: Target) -> None:
    before = target.rss_mb
    async with target.connection() as (_, writer):
        sending = asyncio.ensure_future(send(writer, [GET * 2000] * (30_000_000 // len(GET * 2000))))
        grown = 0.0
        async with asyncio.timeout(30):
            while not sending.done():  # the gateway hangs up on who does not read
                grown = max(grown, target.rss_mb - before)
                assert await target.is_well()
    assert grown < MOST_GROWTH_MB


async def test_requests_in_one_line_are_answered_in_order_whatever_the_packets(target: Target) -> None:
    asked = b"".join(b"GET /nothing/%d HTTP/1.1\r\nhost: x\r\n\r\n" % number for number in range(500))
    asked += b"GET /last HTTP/1.1\r\nconnection: close\r\n\r\n"
    packets = [asked[start : start + 9_973] for start in range(0, len(asked), 9_973)]
    said = await target.answers(*packets)
    assert [int(number) for number in re.findall(rb"no such path: /nothing/(\d+)", said)] == [*range(500)]
    assert b"no such path: /last" in said


async def test_slow_request_headers_get_an_error_and_the_connection_is_closed(target: Target) -> None:
    """Each of 300 sends a byte of its head, and another one whenever it can."""

    async def slow() -> bytes:
        async with target.connection() as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nx: ")
            reading = asyncio.ensure_future(reader.read())
            async with asyncio.timeout(30):
                while not reading.done():
                    writer.write(b"a")
                    await asyncio.wait({reading}, timeout=0.1)
            return await reading

    said = await asyncio.gather(*(slow() for _ in range(300)))
    assert all(each.startswith(b"HTTP/1.1 408") and b"head_timeout_s 1" in each for each in said)


async def test_one_address_cannot_hold_all_connections(target: Target) -> None:
    held = [await asyncio.open_connection("127.0.0.1", target.port) for _ in range(PER_ADDRESS)]
    said = await target.answers(GET)
    for _, writer in held:
        writer.transport.abort()
    assert said.startswith(b"HTTP/1.1 503")
    assert b"max_connections_per_address" in said
    await eventually(target.is_well)


async def test_an_endless_body_that_is_not_read_is_cut(target: Target) -> None:
    async with target.connection() as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            sending = asyncio.ensure_future(send(writer, [b"1\r\nx\r\n"] * 10_000_000))
            await sending


async def test_bodies_that_do_not_end_hold_a_bounded_memory_together_and_give_it_back(target: Target) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: %d\r\n\r\n"
    part = b" " * 2_000_000
    before = target.rss_mb

    async def one_is_refused() -> bool:
        said = await asyncio.gather(*(target.answers(head % 3_000_000, part) for _ in range(60)))
        refused = [each for each in said if b"body_memory_exhausted" in each]
        assert all(each.startswith(b"HTTP/1.1 503") and b"max_bodies_bytes" in each for each in refused)
        return bool(refused)

    await eventually(one_is_refused)
    await eventually(lambda: target.rss_mb - before < MOST_KEPT_MB)
    for _ in range(4):
        said = await target.answers(b"%bx" % (head[:-2] % 2_000_001 + b"connection: close\r\n\r\n"), part)
        assert said.startswith(b"HTTP/1.1 400"), said


@pytest.mark.parametrize(
    "raw",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\0b\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_request_of_http_1_gets_400_as_json(target: Target, raw: bytes) -> None:
    said = await target.answers(raw)
    assert b"HTTP/1.1 400" in said
    assert b'"code":"invalid_request"' in said


async def test_more_bytes_than_a_request_declared_do_not_break_into_its_answer(target: Target) -> None:
    said = await target.answers(b"GET /healthz HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcdefgh")
    assert re.fullmatch(
        rb'HTTP/1\.1 200 .*?{"status":"ok"}HTTP/1\.1 400 .*?invalid_request.*', said, re.DOTALL
    )


async def test_a_request_that_would_rather_speak_http_2_is_answered_with_its_body(target: Target) -> None:
    body = b'{"model": "none", "input": "a"}'
    head = (
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n"
        b"http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    last = b"GET /last HTTP/1.1\r\nconnection: close\r\n\r\n"
    for packets in (
        [head + body + last],
        [head, body, last],
        [head[:100], head[100:] + body[:5], body[5:], last],
    ):
        said = await target.answers(*packets)
        assert b"no_node" in said.split(b"HTTP/1.1 ")[1]
        assert b"no such path: /last" in said
