"""The HTTP server: uvicorn inside the running loop, on a socket that was bound first."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import uvicorn

from actors.gateway.connection import Config
from actors.gateway.connections import ConnectionTable, allow_files
from actors.gateway.errors import HttpPortBusy
from actors.gateway.http_api import HttpApi
from actors.gateway.settings import GatewaySettings
from orchestration.validation import split_address

GRACE_S = 3
"""Time after `drain_s` for responses to end with their error, before connections are closed."""


def bind(address: str, send_buffer_bytes: int) -> socket.socket:
    """Return a bound TCP socket, with a send buffer of `send_buffer_bytes` for each of its connections: the
    kernel's default is megabytes for a client that does not read. Raises `HttpPortBusy`."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise HttpPortBusy(f"no such address {host!r}: {error}; choose another with --http") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # its connections inherit it
        bound.bind(where)
        bound.listen(2048)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise HttpPortBusy(
            f"cannot listen on {address}: {error.strerror}; stop the process that uses port {port}, or "
            f"choose another with --http {host}:PORT (port 0 takes a free one)"
        ) from error
    return bound


class _Server(uvicorn.Server):
    """Leaves signals to the process that embeds it. `listening` is set once it accepts connections, and
    `stopping` ends it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Set the `Date` of responses each second. uvicorn's own loop wakes up ten times for it."""
        while not self.stopping.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.stopping.wait()


class HttpServer:
    """Serves an ASGI application from `start` to `stop`. The constructor binds the port, so that a busy port
    is reported before anything else starts."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.socket = bind(settings.http, settings.stream_buffer_bytes)
        self.connections = ConnectionTable(settings)
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The base URL, for example http://127.0.0.1:8080."""
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self, app: HttpApi) -> None:
        """Start to accept connections."""
        settings = self.settings
        allow_files(settings.max_connections)
        config = Config(
            app,
            self.connections,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # a client's errors go to the client and to metrics
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=settings.idle_connection_s,
            timeout_graceful_shutdown=math.ceil(settings.drain_s) + GRACE_S,
        )
        self._server = _Server(config)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve([self.socket]))
        listening = asyncio.get_running_loop().create_task(self._server.listening.wait())
        await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._serving.done():
            await self._serving

    async def stop(self) -> None:
        """Stop accepting, let responses in flight finish, and close the rest `GRACE_S` after `drain_s`."""
        if self._server is None or self._serving is None:
            self.socket.close()
            return
        self._server.stopping.set()
        await self._serving
        self.connections.stop()
        tasks = self._server.server_state.tasks
        if tasks:  # uvicorn has cancelled them; they still publish their cancellation
            await asyncio.wait(tasks, timeout=2)
