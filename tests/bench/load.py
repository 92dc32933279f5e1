"""The load generator: raw HTTP/1.1 on kept-open connections, as a process of its own.

    python -m tests.bench.load --url http://127.0.0.1:8080/v1/chat/completions --at-once 32 --seconds 5

Prints one JSON object (see `Load`). It costs about 30 µs of CPU a request, so that what it measures is the
server. Every connection sends its next request when the answer to the last one is whole.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import cast
from urllib.parse import urlsplit

import uvloop

_PATIENCE_S = 30
"""How long the last answers may take after the end of a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one round measured. Answers that were no 200 are `errors` and counted nowhere else."""

    requests: int
    errors: int
    seconds: float
    p50_ms: float
    p99_ms: float
    first_error: str = ""

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


class _Client(asyncio.Protocol):
    """One connection that asks until `deadline`."""

    def __init__(self, request: bytes, deadline: float, taken: list[float], errors: list[str]) -> None:
        self._request = request
        self._deadline = deadline
        self._taken = taken
        self._errors = errors
        self._transport: asyncio.Transport | None = None
        self._pending = b""
        self._began = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self._deadline:
            self._errors.append(f"connection lost: {exc}")
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        status = answered(self._pending)
        if status is None:
            return
        if status == 200:
            self._taken.append(time.perf_counter() - self._began)
        else:
            self._errors.append(self._pending[:500].decode("utf-8", "replace"))
        self._pending = b""
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        if time.perf_counter() >= self._deadline or len(self._errors) > 1000:
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(self._request)


def answered(data: bytes) -> int | None:
    """The status if `data` is one whole HTTP/1.1 answer, else None."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    if b"transfer-encoding: chunked" in head:
        whole = data.endswith(b"\r\n0\r\n\r\n")
    else:
        start = head.find(b"content-length:")
        size = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        whole = len(data) >= end + 4 + size
    return int(head.split(b" ", 2)[1]) if whole else None


def request_bytes(
    url: str, body: bytes, key: str = "bench", headers: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """A POST of `body` as it goes over the wire, with more `headers`."""
    parts = urlsplit(url)
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def chat_body(
    model: str,
    *,
    stream: bool = False,
    more: Mapping[str, object] | None = None,
    text: str = "hello there",
) -> bytes:
    """The chat that every side of a comparison is asked, with the fields `more`."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 16}
    return json.dumps(body | ({"stream": True} if stream else {}) | dict(more or {})).encode()


async def _run(url: str, bodies: Sequence[bytes], seconds: float) -> Load:
    """One connection for each of `bodies`, which it sends again and again."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    taken: list[float] = []
    errors: list[str] = []
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    clients = [_Client(request_bytes(url, body), began + seconds, taken, errors) for body in bodies]
    for client in clients:
        await loop.create_connection(lambda client=client: client, host, port)  # type: ignore[misc]
    _, hanging = await asyncio.wait([client.closed for client in clients], timeout=seconds + _PATIENCE_S)
    errors += [f"no whole answer within {_PATIENCE_S} s of the end"] * len(hanging)
    ordered = sorted(taken) or [float("nan")]
    return Load(
        requests=len(taken),
        errors=len(errors),
        seconds=time.perf_counter() - began,
        p50_ms=ordered[len(ordered) // 2] * 1e3,
        p99_ms=ordered[int(len(ordered) * 0.99)] * 1e3,
        first_error=errors[0] if errors else "",
    )


def measure(
    url: str,
    *,
    model: str,
    at_once: int,
    seconds: float,
    stream: bool = False,
    more: Mapping[str, object] | None = None,
    distinct: bool = False,
) -> Load:
    """Run the generator in a process of its own; raises `RuntimeError` if there were errors.

    `more` are fields of the body; with `distinct` each connection has a `seed` of its own.
    """
    command = [sys.executable, "-m", "tests.bench.load", "--url", url, "--model", model]
    command += ["--at-once", str(at_once), "--seconds", str(seconds)] + (["--stream"] if stream else [])
    command += (["--more", json.dumps(more)] if more else []) + (["--distinct"] if distinct else [])
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, timeout=seconds + 90, cwd=Path(__file__).parents[2]
    )
    load = Load(**json.loads(done.stdout))
    if load.errors:
        raise RuntimeError(f"{load.errors} errors at {url}; the first: {load.first_error}")
    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", default="bench")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--more", type=json.loads, default={}, help="More fields of the body, as JSON.")
    parser.add_argument("--distinct", action="store_true", help="A seed of its own for each connection.")
    options = parser.parse_args()
    bodies = [
        chat_body(
            options.model,
            stream=options.stream,
            more=options.more | ({"seed": number} if options.distinct else {}),
        )
        for number in range(options.at_once)
    ]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(_run(options.url, bodies, options.seconds)))))


if __name__ == "__main__":
    main()
