"""Starts one process of tritonserver on free ports, and returns once it takes requests."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from actors.child_server import ChildProcess, spawn
from actors.triton.check import check_server
from actors.triton.errors import TritonError, TritonPortInUse
from actors.triton.files import TritonFiles
from actors.triton.prepare import STUB, Prepared
from actors.triton.settings import TritonServerSettings

_POLL_S = 0.05
"""Triton is up within about 0.3 s, and sends no signal."""
HOST = "127.0.0.1"
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of one server, all on loopback."""

    grpc: int
    http: int
    metrics: int


def choose_ports(settings: TritonServerSettings) -> Ports:
    """The ports that are set, and free ones for 0. Raises `TritonPortInUse`.

    Triton does not accept port 0, so another program can take a free port before Triton listens. Then Triton
    ends, and is started with other ports.
    """
    held: list[socket.socket] = []
    try:
        held.append(_bound(settings.grpc_port, "grpc_port"))
        held.append(_bound(settings.http_port, "http_port"))
        held.append(_bound(settings.metrics_port, "metrics_port"))
        grpc, http, metrics = (each.getsockname()[1] for each in held)
        return Ports(grpc=grpc, http=http, metrics=metrics)
    finally:
        for each in held:
            each.close()


def _bound(port: int, name: str) -> socket.socket:
    made = socket.socket()
    # A server that died a moment ago leaves connections in TIME_WAIT, which Triton's own bind ignores too.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
    except OSError as error:
        made.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise TritonPortInUse(
                f"port {port} on {HOST} ({name}) cannot be taken: {error.strerror}; stop what listens there, "
                "choose another, or, if that is a Triton you want to use, say --triton-url"
            ) from error
        raise
    return made


def command(prepared: Prepared, settings: TritonServerSettings, ports: Ports) -> list[str]:
    """The command line of the server."""
    words = [
        str(prepared.binary),
        f"--model-repository={settings.repository}",
        "--model-control-mode=explicit",
        f"--backend-config=python,shm-region-prefix-name={memory_prefix(settings.data)}",
        f"--exit-timeout-secs={max(1, int(settings.stop_timeout_s))}",
    ]
    for name, port in (("grpc", ports.grpc), ("http", ports.http), ("metrics", ports.metrics)):
        words += [f"--{name}-address={HOST}", f"--{name}-port={port}"]
    if not settings.auto_complete:
        words.append("--disable-auto-complete-config")
    if prepared.backends is not None:
        words.append(f"--backend-directory={prepared.backends}")
    if settings.trace_url:
        words += [
            "--trace-config=mode=opentelemetry",
            f"--trace-config=opentelemetry,url={settings.trace_url}",
            "--trace-config=rate=0",
            "--trace-config=level=TIMESTAMPS",
        ]
    return words


def memory_prefix(data: Path) -> str:
    """The start of the names of this server's shared memory, of no other server's."""
    return f"orchestra-triton-{hashlib.sha256(str(data.absolute()).encode()).hexdigest()[:12]}-"


def sweep(data: Path) -> int:
    """Remove what a killed server over `data` left behind; call it while no server runs.

    The processes of its models end by themselves within seconds, except those that wait for an answer of the
    server: these keep all of their memory, so they are killed. Shared memory, 1 MB or more per model, is
    removed. Returns the number of its segments.
    """
    prefix = memory_prefix(data)
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if Path(words[0]).name == STUB and any(word.startswith(prefix) for word in words):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    left = list(SHARED_MEMORY.glob(f"{prefix}*"))
    for segment in left:
        segment.unlink(missing_ok=True)
    return len(left)


async def launch(
    prepared: Prepared, settings: TritonServerSettings, files: TritonFiles, ports: Ports
) -> ChildProcess:
    """Start the server and wait until it takes requests; no model is loaded then.

    Raises `TritonPortInUse`, `WrongVersion`, or a `TritonError` with the end of the server's log.
    """
    sweep(settings.data)
    files.rotate(settings.max_log_bytes)
    start = files.log_bytes()
    try:
        with files.log.open("ab") as log:
            server = await spawn(command(prepared, settings, ports), os.environ | prepared.environment, log)
    except OSError as error:
        raise TritonError(f"cannot start {prepared.binary}: {error}") from error
    async with server.stopped_on_error(settings.stop_timeout_s):
        await _until_ready(server, settings, files, ports, start)
    return server


async def _until_ready(
    server: ChildProcess, settings: TritonServerSettings, files: TritonFiles, ports: Ports, log_start: int
) -> None:
    import aiohttp  # here: it takes 10 MB, which a process without Triton never needs

    base = f"http://{HOST}:{ports.http}"
    metrics = f"http://{HOST}:{ports.metrics}/metrics"  # the last port that opens
    async with aiohttp.ClientSession() as http:

        async def healthy() -> bool | None:
            try:
                async with http.get(f"{base}/v2/health/ready") as answer, http.get(metrics):
                    if answer.status != 200:
                        return None
            except aiohttp.ClientError:
                return None
            await check_server(http, base)
            return True

        try:
            if await server.ready(healthy, within_s=settings.start_timeout_s, poll_s=_POLL_S):
                return
        except TimeoutError:
            raise TritonError(
                f"tritonserver was not ready within start_timeout_s {settings.start_timeout_s:g}; "
                f"{files.log_end(log_start)}"
            ) from None
    log_end = files.log_end(log_start)
    if "in use" in log_end.partition("\n")[2].lower():
        raise TritonPortInUse(f"another program took a port of tritonserver while it started; {log_end}")
    raise TritonError(f"tritonserver ended with {server.exit_code} before it was ready; {log_end}")
