"""The HTTP server of a process without a gateway: metrics for Prometheus, and probes for whoever runs it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from actors.bus.bus import Bus
from actors.telemetry.exposition import CONTENT_TYPE_LATEST, exposition
from orchestration.errors import Unavailable
from orchestration.validation import split_address

MAX_SCRAPES = 16
"""Maximum connections and requests at once; one more is refused with 503."""
IDLE_S = 30
"""A connection without a request is closed after this time, in seconds."""
WILDCARDS = ("0.0.0.0", "::")

Message = MutableMapping[str, Any]


class MetricsPortBusy(Unavailable):
    """The address of the metrics, `telemetry.metrics`, cannot be listened on."""

    code = "metrics_port_busy"
    retryable = False


class _Server(uvicorn.Server):
    """Leaves signals to the process that embeds it, and sleeps until `stopping` is set; uvicorn's own loop
    wakes up ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.stopping.wait()


class MetricsApp:
    """The ASGI application."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, kind, body = await self._answer(scope["method"], scope["path"])
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, method: str, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        json = "application/json"
        if path not in ("/metrics", "/healthz", "/readyz"):
            return 404, json, b'{"error":"no such path; there are /metrics, /healthz and /readyz"}'
        if method not in ("GET", "HEAD"):
            return 405, json, b'{"error":"only GET and HEAD are allowed"}'
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, await exposition()
        if path == "/readyz" and not self.bus.connected:
            return 503, json, b'{"status":"not ready","missing":["NATS is not reachable"]}'
        return 200, json, b'{"status":"ok"}'


@asynccontextmanager
async def serve_metrics(bus: Bus, address: str) -> AsyncIterator[str]:
    """Serve until the block ends; yields the URL of the metrics. Raises `MetricsPortBusy`."""
    listening = _bind(address)
    config = uvicorn.Config(
        MetricsApp(bus),
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=MAX_SCRAPES,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    serving = asyncio.get_running_loop().create_task(server.serve([listening]))
    try:
        yield _url(listening)
    finally:
        server.stopping.set()
        await serving


def _bind(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(where)
            bound.listen(64)
            bound.setblocking(False)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise MetricsPortBusy(
            f"cannot serve metrics at {address}: {error.strerror}; each process of a machine needs a port of "
            "its own: set telemetry.metrics to another (port 0 takes a free one), or to '' for none"
        ) from error
    return bound


def _url(listening: socket.socket) -> str:
    """The URL that others use: a wildcard address is that of this machine, by its name."""
    host, port = listening.getsockname()[:2]
    if host in WILDCARDS:
        host = socket.gethostname()
    return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"
