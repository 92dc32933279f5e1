"""A server that lives and dies with this process, and is restarted when it dies by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from typing import ClassVar, NoReturn, Protocol

from actors.child_server.process import ChildProcess
from orchestration.errors import OrchestraError
from orchestration.restarts import RestartPolicy, Restarts

log = logging.getLogger(__name__)


class ChildServerSettings(Protocol):
    """The settings that `ChildServer` reads."""

    @property
    def first_backoff_s(self) -> float: ...

    @property
    def max_backoff_s(self) -> float: ...

    @property
    def max_restarts(self) -> int: ...

    @property
    def restart_window_s(self) -> float: ...

    @property
    def stop_timeout_s(self) -> float: ...


class ChildServer(ABC):
    """Supervises one server process between `start` and `stop`.

    A server that dies is launched again. When it dies more than `max_restarts` times within
    `restart_window_s`, it stays down, which is logged, and `watch` raises. If this process is killed, the
    server is killed too. Call `start` in an event loop whose thread lasts, which the main thread always does.
    """

    program: ClassVar[str]
    """The name of the server, for log and errors."""
    error: ClassVar[type[OrchestraError]]
    """What `watch` raises."""

    def __init__(self, limits: ChildServerSettings) -> None:
        self.restarts = 0
        """How often the server was restarted since `start`."""
        self._limits = limits
        self._process: ChildProcess | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._failed = asyncio.Event()
        self._failure: OrchestraError | None = None

    @abstractmethod
    async def launch(self) -> ChildProcess:
        """Start the server and return once it is ready. Raises `error`."""

    @abstractmethod
    def log_end(self, pid: int) -> str:
        """The path of the log and the last lines of process `pid`, for an error message."""

    @property
    def pid(self) -> int | None:
        """The process id of the server, or None while there is none."""
        return self._process.pid if self._process else None

    async def watch(self) -> NoReturn:
        """Wait as long as the server can be kept running, then raise why it cannot."""
        await self._failed.wait()
        raise self._failure or self.error(f"{self.program} is down")

    async def start(self) -> None:
        """Launch the server and supervise it. Raises what `launch` raises."""
        self._process = await self.launch()
        self._supervision = asyncio.create_task(self._supervise(), name=self.program)

    async def stop(self) -> None:
        """Stop the supervision, and the server with SIGTERM; SIGKILL after `stop_timeout_s`."""
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.wait({self._supervision})
        process, self._process = self._process, None
        if process is not None:
            await process.stop(self._limits.stop_timeout_s)

    def restart(self) -> None:
        """Terminate the server, which the supervision then restarts."""
        if self._process is not None:
            self._process.terminate()

    async def _supervise(self) -> None:
        limits = self._limits
        deaths = Restarts(
            RestartPolicy(
                backoff_s=limits.first_backoff_s,
                max_backoff_s=limits.max_backoff_s,
                jitter=0.0,
                max_restarts=limits.max_restarts,
                window_s=limits.restart_window_s,
            )
        )
        while True:
            if self._process is not None:
                code, pid = await self._process.wait(), self._process.pid
                self._process = None
                reason = self.error(f"{self.program} (process {pid}) ended with {code}; {self.log_end(pid)}")
            pause = deaths.after_crash(time.monotonic(), 0.5)
            if pause is None:
                self._fail(reason)
                return
            log.error("%s\nrestarting it in %.2f s", reason, pause)
            await asyncio.sleep(pause)
            try:
                self._process = await self.launch()
                self.restarts += 1
            except self.error as error:
                reason = error

    def _fail(self, reason: OrchestraError) -> None:
        limits = self._limits
        self._failure = self.error(
            f"{self.program} died more than max_restarts {limits.max_restarts} times within "
            f"{limits.restart_window_s:g} s and is not restarted. The last failure: {reason}"
        )
        log.critical("%s", self._failure)
        self._failed.set()
