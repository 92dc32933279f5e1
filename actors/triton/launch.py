"""What it takes to start a tritonserver: free ports, a command line, and nothing left behind."""

from __future__ import annotations

import errno
import hashlib
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from actors.triton.errors import TritonPortInUse
from actors.triton.prepare import STUB, Prepared
from actors.triton.settings import TritonServerSettings

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
