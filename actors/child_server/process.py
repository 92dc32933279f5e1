"""A child process that ends with this process: spawned, watched until it is ready, and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO, TypeVar

from actors.child_server import die_with_parent

T = TypeVar("T")

USE_PIPE = not sys.platform.startswith("linux")
"""Whether a pipe ties a child to this process; on Linux the kernel does it."""


def tied_to_parent(program: Sequence[str], *, lifeline: int = -1) -> list[str]:
    """The command that runs `program` and dies with this process. `lifeline` is the read end of a pipe, or -1
    to let the kernel do it (Linux). Run it from a thread that lasts: see `die_with_parent`."""
    script = die_with_parent.__file__
    return [sys.executable, "-I", "-S", script, str(os.getpid()), str(lifeline), *program]


@dataclass(slots=True)
class ChildProcess:
    """Owned by the event loop that spawned it, whose thread must live as long as the process should."""

    process: asyncio.subprocess.Process
    lifeline: int = -1
    """The write end of the pipe that ties the process to this one; -1 where the kernel does it."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self.process.returncode

    async def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        code = await self.process.wait()
        self._close_lifeline()
        return code

    async def ready(
        self, probe: Callable[[], Awaitable[T | None]], *, within_s: float, poll_s: float
    ) -> T | None:
        """Call `probe` every `poll_s` seconds until it returns a value, which this returns.

        Returns None when the process ends first. Raises `TimeoutError` after `within_s` seconds.
        """
        async with asyncio.timeout(within_s):
            while self.exit_code is None:
                if (found := await probe()) is not None:
                    return found
                await asyncio.sleep(poll_s)
        return None

    def terminate(self) -> None:
        """Send SIGTERM, and do not wait for the end."""
        self._send(signal.SIGTERM)

    async def stop(self, timeout_s: float) -> None:
        """Send SIGTERM, then SIGKILL after `timeout_s` seconds or at once when cancelled."""
        try:
            self._send(signal.SIGTERM)
            async with asyncio.timeout(timeout_s):
                await self.process.wait()
        except TimeoutError:
            self._send(signal.SIGKILL)
            await self.process.wait()
        finally:
            self._send(signal.SIGKILL)
            self._close_lifeline()

    @asynccontextmanager
    async def stopped_on_error(self, timeout_s: float) -> AsyncIterator[None]:
        """Stop the process when the block raises."""
        try:
            yield
        except BaseException:
            await self.stop(timeout_s)
            raise

    def _send(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            with suppress(ProcessLookupError):  # it ended meanwhile
                self.process.send_signal(number)

    def _close_lifeline(self) -> None:
        if self.lifeline >= 0:
            with suppress(BrokenPipeError):  # the watching sh has ended
                os.write(self.lifeline, b"ended\n")
            os.close(self.lifeline)
            self.lifeline = -1


async def spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: IO[bytes],
    *,
    inherited: Sequence[int] = (),
) -> ChildProcess:
    """Start `command`, tied to this process. stdout and stderr go to `output`; the process inherits the file
    descriptors `inherited`. Raises `OSError`."""
    reading, lifeline = os.pipe() if USE_PIPE else (-1, -1)
    try:
        process = await asyncio.create_subprocess_exec(
            *tied_to_parent(command, lifeline=reading),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[*inherited, reading] if USE_PIPE else inherited,
            # Ctrl-C reaches a whole process group; the server must outlast the drain of its clients.
            start_new_session=True,
        )
    except BaseException:
        if USE_PIPE:
            os.close(lifeline)
        raise
    finally:
        if USE_PIPE:
            os.close(reading)
    return ChildProcess(process, lifeline)
