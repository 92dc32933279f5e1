"""One process of nats-server: started behind the leash, watched until it is ready, ended in good order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from actors.nats_server.errors import NatsPortInUse, NatsServerError
from actors.nats_server.files import ServerFiles
from actors.nats_server.launch import clear_ports, command, config_file, environment, find_binary, read_port
from actors.nats_server.lock import DataLock
from actors.nats_server.settings import NatsServerSettings

_POLL_S = 0.005
"""The server writes its address into a file and tells nobody; it is up within about 15 ms."""


@dataclass(slots=True)
class ServerProcess:
    """Owned by the event loop that launched it: its thread must live as long as the server should."""

    process: asyncio.subprocess.Process
    port: int = 0
    lifeline: int = -1
    """Where the kernel has no leash: the end of the pipe that keeps the watching `sh` quiet."""

    @property
    def pid(self) -> int:
        return self.process.pid

    async def wait(self) -> int:
        """Its exit code once it has ended, negative for a signal."""
        code = await self.process.wait()
        self._let_go()
        return code

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting for the end."""
        if self.process.returncode is None:
            _send(self.process, signal.SIGTERM)

    async def stop(self, timeout_s: float) -> None:
        """SIGTERM, then SIGKILL after `timeout_s` seconds or at once when cancelled."""
        try:
            if self.process.returncode is None:
                _send(self.process, signal.SIGTERM)
            async with asyncio.timeout(timeout_s):
                await self.process.wait()
        except TimeoutError:
            _send(self.process, signal.SIGKILL)
            await self.process.wait()
        finally:
            if self.process.returncode is None:
                _send(self.process, signal.SIGKILL)
            self._let_go()

    def _let_go(self) -> None:
        if self.lifeline >= 0:
            with suppress(BrokenPipeError):  # the watching sh was ended by somebody
                os.write(self.lifeline, b"ended\n")
            os.close(self.lifeline)
            self.lifeline = -1


async def launch(
    settings: NatsServerSettings,
    files: ServerFiles,
    lock: DataLock,
    *,
    port: int,
    use_pipe: bool = not sys.platform.startswith("linux"),
) -> ServerProcess:
    """Start the server and wait until it takes clients. `port` 0 takes a free one.

    Raises `ServerBinaryMissing`, `NatsPortInUse`, or a `NatsServerError` with the end of the server's log.
    """
    try:
        server = await _spawn(settings, files, lock, port, use_pipe)
    except OSError as error:
        raise NatsServerError(f"cannot start nats-server: {error}") from error
    try:
        server.port = await _ready(server, settings, files, port)
    except BaseException:
        await server.stop(settings.stop_timeout_s)
        raise
    return server


async def _spawn(
    settings: NatsServerSettings, files: ServerFiles, lock: DataLock, port: int, use_pipe: bool
) -> ServerProcess:
    clear_ports(files)
    with files.stderr.open("wb") as stderr:
        return await spawn(
            lambda reading: command(binary=find_binary(), config=config_file(settings), lifeline=reading),
            environment(settings, files, port=port),
            stderr,
            inherited=[lock.fileno()] if lock.fileno() >= 0 else [],
            use_pipe=use_pipe,
        )


async def spawn(
    words: Callable[[int], Sequence[str]],
    variables: Mapping[str, str],
    output: IO[bytes],
    *,
    inherited: Sequence[int] = (),
    use_pipe: bool,
) -> ServerProcess:
    """Start a server that ends with this process. `words` gets the descriptor of the leash's pipe, -1 where
    there is none; stdout and stderr go to `output`."""
    reading, lifeline = os.pipe() if use_pipe else (-1, -1)
    try:
        process = await asyncio.create_subprocess_exec(
            *words(reading),
            env=variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[*inherited, reading] if use_pipe else inherited,
            # Ctrl-C goes to a whole process group; the server must outlast the drain of who uses it.
            start_new_session=True,
        )
    except BaseException:
        if use_pipe:
            os.close(lifeline)
        raise
    finally:
        if use_pipe:
            os.close(reading)
    return ServerProcess(process, lifeline=lifeline)


async def _ready(server: ServerProcess, settings: NatsServerSettings, files: ServerFiles, port: int) -> int:
    try:
        async with asyncio.timeout(settings.start_timeout_s):
            while server.process.returncode is None:
                found = read_port(files, server.pid)
                if found is not None:
                    return found
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise NatsServerError(
            f"nats-server was not ready within start_timeout_s {settings.start_timeout_s}; "
            f"the end of its log {files.log}:\n{files.log_tail(server.pid)}"
        ) from None
    raise _why_it_ended(server, settings, files, port)


def _why_it_ended(
    server: ServerProcess, settings: NatsServerSettings, files: ServerFiles, port: int
) -> NatsServerError:
    tail = files.log_tail(server.pid)
    if "address already in use" in tail:
        what, busy = "", port
        if "monitor port" in tail:
            what, busy = " (the monitor port)", settings.monitor_port
        elif "router port" in tail:
            what, busy = " (the cluster_port)", settings.cluster_port
        return NatsPortInUse(
            f"port {busy} on {settings.host} is already in use{what}: stop what listens there, choose "
            f"another port, or, if that is a NATS server you want to join, use --nats nats://{settings.host}:{busy}"
        )
    return NatsServerError(
        f"nats-server ended with {server.process.returncode} before it was ready; "
        f"the end of its log {files.log}:\n{tail}"
    )


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it ended meanwhile
        process.send_signal(number)
