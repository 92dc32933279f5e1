"""A tritonserver that lives and dies with this process, and comes back when it alone dies."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import ExitStack
from types import TracebackType
from typing import NoReturn, Self

from actors.nats_server.process import ServerProcess
from actors.runtime.supervision import Restarts
from actors.triton.config import check_path, check_place
from actors.triton.errors import TritonError, TritonPortInUse
from actors.triton.files import TritonFiles
from actors.triton.launch import HOST, Ports, choose_ports, sweep
from actors.triton.locate import find_server
from actors.triton.prepare import Prepared, prepare
from actors.triton.process import launch
from actors.triton.settings import TritonServerSettings

log = logging.getLogger(__name__)

_PORT_TRIES = 3


class TritonServer:
    """`async with TritonServer(settings) as server:` and then `server.url`.

    Entering raises a `TritonError` or `BadRepository` that says what to do. It starts without a model: load
    them over gRPC. A server that dies is started again on the same ports, again without a model. If it dies
    more than `max_restarts` times within `restart_window_s`, this gives up: the log says so and `watch`
    raises. Leaving stops the server with SIGTERM; if this process is killed, the server is killed too.

    Enter it from an event loop whose thread lasts, which the main thread always does.
    """

    def __init__(self, settings: TritonServerSettings) -> None:
        self.settings = settings
        self.files = TritonFiles(settings.data)
        self.restarts = 0
        """How often the server was started again since this was entered."""
        self._held = ExitStack()
        self._ports = Ports(grpc=0, http=0, metrics=0)
        self._server: ServerProcess | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._gave_up = asyncio.Event()
        self._reason: TritonError | None = None

    @property
    def url(self) -> str:
        """Where gRPC clients reach it, grpc://HOST:PORT; the same for life. Valid inside `async with`."""
        return f"grpc://{HOST}:{self._ports.grpc}"

    @property
    def http_url(self) -> str:
        return f"http://{HOST}:{self._ports.http}"

    @property
    def metrics_url(self) -> str:
        return f"http://{HOST}:{self._ports.metrics}/metrics"

    @property
    def pid(self) -> int | None:
        """The process id of the server, or None while there is none."""
        return self._server.pid if self._server else None

    async def watch(self) -> NoReturn:
        """Wait as long as the server can be kept running, then raise the `TritonError` why not."""
        await self._gave_up.wait()
        raise self._reason or TritonError("tritonserver was given up")

    async def __aenter__(self) -> Self:
        check_place(self.settings.repository)
        check_path(self.settings.data)
        installation = find_server()
        self.files.prepare()
        prepared = prepare(installation, self.settings.data)
        self._held.enter_context(self.files.locked())
        try:
            await self._first_launch(prepared)
        except BaseException:
            self._held.close()
            raise
        self._supervision = asyncio.create_task(self._supervise(prepared), name="tritonserver")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.wait({self._supervision})
        try:
            if self._server is not None:
                await self._server.stop(self.settings.stop_timeout_s)
                sweep(self.settings.data)
        finally:
            self._server = None
            self._held.close()

    async def _first_launch(self, prepared: Prepared) -> None:
        for tries_left in reversed(range(_PORT_TRIES)):
            self._ports = choose_ports(self.settings)
            try:
                await self._launch(prepared)
                return
            except TritonPortInUse:
                if not tries_left:
                    raise

    async def _launch(self, prepared: Prepared) -> None:
        self._server = await launch(prepared, self.settings, self.files, self._ports)
        log.info("tritonserver (process %d) listens at %s", self._server.pid, self.url)

    async def _supervise(self, prepared: Prepared) -> None:
        deaths = Restarts(self.settings.restart_policy)
        while True:
            if self._server is not None:
                code = await self._server.wait()
                reason = TritonError(
                    f"tritonserver (process {self._server.pid}) ended with {code}; "
                    f"the end of its log {self.files.log}:\n{self.files.log_tail()}"
                )
                self._server = None
            pause = deaths.after_crash(time.monotonic(), 0.5)
            if pause is None:
                self._give_up(reason)
                return
            log.error("%s\nstarting it again in %.2f s", reason, pause)
            await asyncio.sleep(pause)
            try:
                await self._launch(prepared)
                self.restarts += 1
            except TritonError as error:
                reason = error

    def _give_up(self, reason: TritonError) -> None:
        self._reason = TritonError(
            f"tritonserver failed more than max_restarts {self.settings.max_restarts} times within "
            f"{self.settings.restart_window_s:g} s; given up. The last time: {reason}"
        )
        log.critical("%s", self._reason)
        self._gave_up.set()
