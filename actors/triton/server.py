"""The tritonserver beside a node."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from actors.child_server import ChildProcess, ChildServer, FolderLock
from actors.triton.config import check_path, check_place
from actors.triton.errors import TritonError, TritonPortInUse
from actors.triton.files import TritonFiles
from actors.triton.launch import HOST, Ports, choose_ports, launch, sweep
from actors.triton.locate import find_server
from actors.triton.prepare import Prepared, prepare
from actors.triton.settings import TritonServerSettings

log = logging.getLogger(__name__)

_PORT_TRIES = 3


class TritonServer(ChildServer):
    """`async with TritonServer(settings) as server:` and then `server.url`.

    Entering raises a `TritonError` or `BadRepository` that says what to do. The server starts without a
    model: load models over gRPC. A restarted server has the same ports, and again no model. Leaving stops it
    with SIGTERM.
    """

    program = "tritonserver"
    error = TritonError

    def __init__(self, settings: TritonServerSettings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.files = TritonFiles(settings.data)
        self._lock = FolderLock(self.files.lock)
        self._ports = Ports(grpc=0, http=0, metrics=0)
        self._prepared: Prepared | None = None

    @property
    def url(self) -> str:
        """grpc://HOST:PORT for gRPC clients; the same after a restart. Valid inside `async with`."""
        return f"grpc://{HOST}:{self._ports.grpc}"

    @property
    def http_url(self) -> str:
        return f"http://{HOST}:{self._ports.http}"

    @property
    def metrics_url(self) -> str:
        return f"http://{HOST}:{self._ports.metrics}/metrics"

    async def __aenter__(self) -> Self:
        check_place(self.settings.repository)
        check_path(self.settings.data)
        installation = find_server()
        self.files.prepare()
        self._prepared = prepare(installation, self.settings.data)
        await self.files.acquire(self._lock)
        try:
            await self._start_on_free_ports()
        except BaseException:
            self._lock.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
            sweep(self.settings.data)
        finally:
            self._lock.release()

    async def _start_on_free_ports(self) -> None:
        for tries_left in reversed(range(_PORT_TRIES)):
            self._ports = choose_ports(self.settings)
            try:
                await self.start()
                return
            except TritonPortInUse:
                if not tries_left:
                    raise

    async def launch(self) -> ChildProcess:
        assert self._prepared is not None
        process = await launch(self._prepared, self.settings, self.files, self._ports)
        log.info("tritonserver (process %d) listens at %s", process.pid, self.url)
        return process

    def log_end(self, pid: int) -> str:
        return self.files.log_end()
