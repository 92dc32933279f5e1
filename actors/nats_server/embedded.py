"""A nats-server that lives and dies with this process, and comes back when it alone dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from types import TracebackType
from typing import NoReturn, Self

from actors.nats_server.cluster import prepare_store
from actors.nats_server.disk import watch_disk
from actors.nats_server.errors import NatsServerError
from actors.nats_server.files import ServerFiles
from actors.nats_server.lock import DataLock
from actors.nats_server.process import ServerProcess, launch
from actors.nats_server.settings import NatsServerSettings

log = logging.getLogger(__name__)


class EmbeddedNats:
    """`async with EmbeddedNats(settings) as server:` and then `server.url`.

    Entering raises a `NatsServerError` that says what to do. A server that dies is started again on the
    same port and data, so that clients only reconnect. If it dies more than `max_restarts` times within
    `restart_window_s`, this gives up: the log says so and `watch` raises. Leaving stops the server with
    SIGTERM. If this process is killed, the server is killed too: `leash` says how.

    Enter it from an event loop whose thread lasts, which the main thread always does.
    """

    def __init__(self, settings: NatsServerSettings) -> None:
        self.settings = settings
        self.files = ServerFiles(settings.data)
        self.restarts = 0
        """How often the server was started again since this was entered."""
        self._disk_problem = ""
        self._lock = DataLock(self.files.lock)
        self._server: ServerProcess | None = None
        self._port = settings.port
        self._supervision: asyncio.Task[None] | None = None
        self._disk: asyncio.Task[None] | None = None
        self._gave_up = asyncio.Event()
        self._reason: NatsServerError | None = None

    @property
    def url(self) -> str:
        """Where this machine reaches it; the same for life. Valid inside `async with`."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.settings.host, self.settings.host)
        return f"nats://{host}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id of the server, or None while there is none."""
        return self._server.pid if self._server else None

    def disk_problem(self) -> str:
        """That the disk is full, while it is, else ''."""
        return self._disk_problem

    async def watch(self) -> NoReturn:
        """Wait as long as the server can be kept running, then raise the `NatsServerError` why not."""
        await self._gave_up.wait()
        raise self._reason or NatsServerError("the embedded nats-server was given up")

    async def __aenter__(self) -> Self:
        self.files.prepare()
        await self._lock.acquire()
        try:
            prepare_store(self.settings, self.files)
            await self._launch()
        except BaseException:
            self._lock.release()
            raise
        self._supervision = asyncio.create_task(self._supervise(), name="nats-server")
        self._disk = asyncio.create_task(
            watch_disk(self.files, self._renew, self._tell), name="nats-server-disk"
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._disk, self._supervision) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        try:
            if self._server is not None:
                await self._server.stop(self.settings.stop_timeout_s)
        finally:
            self._server = None
            self._lock.release()

    async def _launch(self) -> None:
        self._server = await launch(self.settings, self.files, self._lock, port=self._port)
        self._port = self._server.port
        self._lock.note_server(self._server.pid, self.url)
        log.info("nats-server (process %d) listens at %s", self._server.pid, self.url)

    def _tell(self, trouble: str) -> None:
        self._disk_problem = trouble

    def _renew(self) -> None:
        """End the server in good order; the supervision starts it again."""
        if self._server is not None:
            self._server.ask_to_stop()

    async def _supervise(self) -> None:
        deaths: deque[float] = deque()
        while True:
            if self._server is not None:
                code = await self._server.wait()
                reason = NatsServerError(
                    f"nats-server (process {self._server.pid}) ended with {code}; the end of its log "
                    f"{self.files.log}:\n{self.files.log_tail(self._server.pid)}"
                )
                self._server = None
            now = time.monotonic()
            deaths.append(now)
            while deaths[0] < now - self.settings.restart_window_s:
                deaths.popleft()
            if len(deaths) > self.settings.max_restarts:
                self._give_up(len(deaths), reason)
                return
            pause = min(self.settings.first_backoff_s * 2 ** (len(deaths) - 1), self.settings.max_backoff_s)
            log.error("%s\nstarting it again in %.2f s", reason, pause)
            await asyncio.sleep(pause)
            try:
                await self._launch()
                self.restarts += 1
            except NatsServerError as error:
                reason = error

    def _give_up(self, deaths: int, reason: NatsServerError) -> None:
        self._reason = NatsServerError(
            f"nats-server failed {deaths} times within {self.settings.restart_window_s:g} s, more than "
            f"max_restarts {self.settings.max_restarts}; given up. The last time: {reason}"
        )
        log.critical("%s", self._reason)
        self._gave_up.set()
