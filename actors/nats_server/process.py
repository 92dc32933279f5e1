"""Starts one process of nats-server, and returns once it takes clients."""

from __future__ import annotations

from actors.child_server import ChildProcess, FolderLock, spawn
from actors.nats_server.errors import NatsPortInUse, NatsServerError
from actors.nats_server.files import ServerFiles
from actors.nats_server.launch import clear_ports, command, config_file, environment, find_binary, read_port
from actors.nats_server.settings import NatsServerSettings

_POLL_S = 0.005
"""The server writes its address into a file, within about 15 ms of its start, and sends no signal."""


async def launch(
    settings: NatsServerSettings, files: ServerFiles, lock: FolderLock, *, port: int
) -> tuple[ChildProcess, int]:
    """Start the server; returns it and its port. `port` 0 takes a free one.

    Raises `ServerBinaryMissing`, `NatsPortInUse`, or a `NatsServerError` with the end of the server's log.
    """
    clear_ports(files)
    words = command(binary=find_binary(), config=config_file(settings))
    inherited = [lock.fileno()] if lock.fileno() >= 0 else []
    try:
        with files.stderr.open("wb") as stderr:
            server = await spawn(words, environment(settings, files, port=port), stderr, inherited=inherited)
    except OSError as error:
        raise NatsServerError(f"cannot start nats-server: {error}") from error

    async def listening() -> int | None:
        return read_port(files, server.pid)

    async with server.stopped_on_error(settings.stop_timeout_s):
        try:
            found = await server.ready(listening, within_s=settings.start_timeout_s, poll_s=_POLL_S)
        except TimeoutError:
            raise NatsServerError(
                f"nats-server was not ready within start_timeout_s {settings.start_timeout_s}; "
                f"{files.log_end(server.pid)}"
            ) from None
        if found is None:
            raise _why_it_ended(server, settings, files, port)
    return server, found


def _why_it_ended(
    server: ChildProcess, settings: NatsServerSettings, files: ServerFiles, port: int
) -> NatsServerError:
    log_end = files.log_end(server.pid)
    if "address already in use" in log_end:
        what, busy = "", port
        if "monitor port" in log_end:
            what, busy = " (the monitor port)", settings.monitor_port
        elif "router port" in log_end:
            what, busy = " (the cluster_port)", settings.cluster_port
        return NatsPortInUse(
            f"port {busy} on {settings.host} is already in use{what}: stop what listens there, choose "
            f"another port, or, if that is a NATS server you want to join, use --nats nats://{settings.host}:{busy}"
        )
    return NatsServerError(f"nats-server ended with {server.exit_code} before it was ready; {log_end}")
