"""The nats-server beside `orchestra up`."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from actors.child_server import ChildProcess, ChildServer, FolderLock
from actors.nats_server.cluster import prepare_store
from actors.nats_server.disk import watch_disk
from actors.nats_server.errors import NatsServerError
from actors.nats_server.files import ServerFiles
from actors.nats_server.launch import launch
from actors.nats_server.lock import LOCK_WAIT_S, lock_data_folder
from actors.nats_server.settings import NatsServerSettings

log = logging.getLogger(__name__)


class EmbeddedNats(ChildServer):
    """`async with EmbeddedNats(settings) as server:` and then `server.url`.

    Entering raises a `NatsServerError` that says what to do. A restarted server has the same port and data,
    so that clients only reconnect. Leaving stops it with SIGTERM.
    """

    program = "nats-server"
    error = NatsServerError

    def __init__(self, settings: NatsServerSettings, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        super().__init__(settings)
        self.settings = settings
        self.files = ServerFiles(settings.data)
        self._disk_problem = ""
        self._lock = FolderLock(self.files.lock)
        self._lock_wait_s = lock_wait_s
        self._port = settings.port
        self._disk: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The address of the server for this machine; a restart keeps it. Valid inside `async with`."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.settings.host, self.settings.host)
        return f"nats://{host}:{self._port}"

    def disk_problem(self) -> str:
        """The text of the problem while the disk is full, else ''."""
        return self._disk_problem

    async def __aenter__(self) -> Self:
        self.files.prepare()
        await lock_data_folder(self._lock, self._lock_wait_s)
        try:
            prepare_store(self.settings, self.files)
            await self.start()
        except BaseException:
            self._lock.release()
            raise
        watching = watch_disk(self.files, self.restart, self._note_disk_problem)
        self._disk = asyncio.create_task(watching, name="nats-server-disk")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._disk is not None:
                self._disk.cancel()
                await asyncio.wait({self._disk})
            await self.stop()
        finally:
            self._lock.release()

    async def launch(self) -> ChildProcess:
        process, self._port = await launch(self.settings, self.files, self._lock, port=self._port)
        self._lock.note(server_pid=process.pid, url=self.url)
        log.info("nats-server (process %d) listens at %s", process.pid, self.url)
        return process

    def log_end(self, pid: int) -> str:
        return self.files.log_end(pid)

    def _note_disk_problem(self, problem: str) -> None:
        self._disk_problem = problem
