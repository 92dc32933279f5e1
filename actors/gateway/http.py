"""The HTTP server: uvicorn inside the running loop, on a socket that was bound first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import resource
import socket
from collections.abc import Iterator

import uvicorn

from actors.gateway.connection import Config
from actors.gateway.connections import ConnectionTable
from actors.gateway.errors import HttpPortBusy
from actors.gateway.http_api import HttpApi
from actors.gateway.settings import GatewaySettings, split_address

log = logging.getLogger(__name__)

SPARE_FILES = 512
"""For what this process opens beside HTTP connections."""
GRACE_S = 3
"""Past `drain_s`, for answers to end with their error before connections are cut."""


def bind(address: str, send_buffer_bytes: int) -> socket.socket:
    """A bound TCP socket, whose connections have send buffers of that size: left alone, the kernel holds
    megabytes for a client that does not read. Raises `HttpPortBusy` naming the address and the way out."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise HttpPortBusy(f"no such address {host!r}: {error}; choose another with --http") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        bound.bind(where)
        bound.listen(2048)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise HttpPortBusy(
            f"cannot listen on {address}: {error.strerror}; end what holds port {port}, or choose another "
            f"with --http {host}:PORT (port 0 takes a free one)"
        ) from error
    return bound


def allow_files(connections: int) -> None:
    """Raise this process's limit of open files, of which every connection is one, as far as it may."""
    wanted = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning(
            "gateway.max_connections %d need %d open files, and this process may have %d: raise `ulimit -Hn`",
            connections,
            wanted,
            allowed,
        )


class _Server(uvicorn.Server):
    """Signals belong to the process that embeds this server; `listening` is set once it accepts."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class HttpServer:
    """Serves an application from `start` to `stop`. The port is taken at construction, so that a busy one is
    told before anything else is started."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.socket = bind(settings.http, settings.stream_buffer_bytes)
        self.connections = ConnectionTable(settings)
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """For example http://127.0.0.1:8080."""
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self, app: HttpApi) -> None:
        """Begin to accept."""
        settings = self.settings
        allow_files(settings.max_connections)
        config = Config(
            app,
            self.connections,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # what a client does wrong it is told, and counted
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=settings.idle_connection_s,
            timeout_graceful_shutdown=math.ceil(settings.drain_s) + GRACE_S,
        )
        self._server = _Server(config)
        self.connections.start()
        self._serving = asyncio.get_running_loop().create_task(self._server.serve([self.socket]))
        listening = asyncio.get_running_loop().create_task(self._server.listening.wait())
        await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._serving.done():
            await self._serving

    async def stop(self) -> None:
        """Accept no more, let answers in flight finish, cut the rest `GRACE_S` after `drain_s`."""
        if self._server is None or self._serving is None:
            self.socket.close()
            return
        self._server.should_exit = True
        await self._serving
        self.connections.stop()
        tasks = self._server.server_state.tasks
        if tasks:  # cancelled by uvicorn; they still have to say so to the bus
            await asyncio.wait(tasks, timeout=2)
