"""Paced streams under measurement: when their first chunk comes, and how long each chunk is on the way.

The upstream writes into each chunk the moment it sent it, by the monotonic clock that all processes of a
machine share. The client is a bare protocol, about 20 µs a chunk, so that what it measures is the server.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import uvloop

from tests.bench.load import request_bytes
from tests.bench.serving import Serving

_STAMP = re.compile(rb"@(\d+) ")
_END = b"0\r\n\r\n"
_PATIENCE_S = 30


@dataclass(slots=True)
class StreamTimes:
    """Milliseconds: from the request to the first chunk, of each stream; on the way, of each later chunk."""

    first_ms: list[float] = field(default_factory=list)
    transit_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class _StreamClient(asyncio.Protocol):
    """One connection that asks for one stream after another until `deadline`."""

    def __init__(self, request: bytes, chunks: int, deadline: float, times: StreamTimes) -> None:
        self._request = request
        self._chunks = chunks
        self._deadline = deadline
        self._times = times
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._asked_ns = 0
        self._count = 0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._count:
            self._times.errors.append(f"connection lost after {self._count} chunks: {exc}")
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._rest += data
        end = 0
        for stamp in _STAMP.finditer(self._rest):
            self._arrived(now, int(stamp[1]))
            end = stamp.end()
        self._rest = self._rest[end:]
        if self._rest.endswith(_END):
            if self._count != self._chunks:
                self._times.errors.append(f"{self._count} chunks of {self._chunks}: {self._rest[:300]!r}")
            self._ask()

    def _arrived(self, now_ns: int, sent_ns: int) -> None:
        if self._count:
            self._times.transit_ms.append((now_ns - sent_ns) / 1e6)
        else:
            self._times.first_ms.append((now_ns - self._asked_ns) / 1e6)
        self._count += 1

    def _ask(self) -> None:
        assert self._transport is not None
        self._rest, self._count = b"", 0
        if time.monotonic() >= self._deadline or self._times.errors:
            self._transport.close()
            return
        self._asked_ns = time.monotonic_ns()
        self._transport.write(self._request)


def measure_streams(
    server: Serving, body: bytes, *, chunks: int, at_once: int, seconds: float, apart_s: float
) -> StreamTimes:
    """Keep `at_once` streams going, each begun `apart_s` after the one before. Raises `RuntimeError` if a
    stream broke or was not whole."""
    request = request_bytes(server.chat_url, body, headers=server.headers)
    parts = urlsplit(server.url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    times = StreamTimes()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + seconds + at_once * apart_s
        clients = [_StreamClient(request, chunks, deadline, times) for _ in range(at_once)]
        for client in clients:
            await loop.create_connection(lambda client=client: client, host, port)  # type: ignore[misc]
            await asyncio.sleep(apart_s)
        _, hanging = await asyncio.wait([each.closed for each in clients], timeout=seconds + _PATIENCE_S)
        times.errors.extend([f"no end within {_PATIENCE_S} s"] * len(hanging))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    if times.errors:
        raise RuntimeError(f"{len(times.errors)} errors at {server.chat_url}; the first: {times.errors[0]}")
    return times
