"""Servers under measurement: started, waited for, weighed, and stopped with all their processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True, kw_only=True)
class Serving:
    """A server that is up. `url` has no path."""

    name: str
    url: str
    roots: tuple[int, ...]
    """The processes that were started; their descendants belong to the server too."""
    prefix: str = "/v1"
    """What comes before `/chat/completions`."""
    model: str = "bench"
    """The name under which it serves the model of the benchmark."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What its requests need besides a key."""

    @property
    def chat_url(self) -> str:
        return f"{self.url}{self.prefix}/chat/completions"

    def rss_mb(self) -> float:
        """Resident memory of all its processes, in MB (10^6 bytes)."""
        return sum(process.memory_info().rss for process in _trees(self.roots)) / 1e6

    def cpu_s(self) -> float:
        """CPU seconds that all its processes used so far."""
        return sum(sum(process.cpu_times()[:2]) for process in _trees(self.roots))


def _trees(roots: Sequence[int]) -> list[psutil.Process]:
    parents = [psutil.Process(pid) for pid in roots]
    return parents + [child for parent in parents for child in parent.children(recursive=True)]


@dataclass(slots=True)
class Started:
    """A process and the file its output goes to."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_for_line(self, text: str, timeout_s: float = 60) -> str:
        """The first line of its output that holds `text`; raises `RuntimeError` with the output if none."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and self.process.poll() is None:
            for line in self.log.read_text(errors="replace").splitlines():
                if text in line:
                    return line
            time.sleep(0.05)
        raise RuntimeError(f"no {text!r} within {timeout_s:g} s:\n{self.tail()}")

    def wait_for_model(self, url: str, model: str, timeout_s: float = 120) -> None:
        """Poll `/v1/models` until it lists `model`."""
        until = time.monotonic() + timeout_s
        request = urllib.request.Request(f"{url}/v1/models", headers={"Authorization": "Bearer bench"})
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError, urllib.error.URLError, ValueError):
                with urllib.request.urlopen(request, timeout=5) as answer:
                    if model in [entry["id"] for entry in json.load(answer)["data"]]:
                        return
            time.sleep(0.1)
        raise RuntimeError(f"{url} does not serve {model!r} after {timeout_s:g} s:\n{self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@contextmanager
def started(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[Started]:
    """Run `command` in a process group of its own; on exit SIGTERM, and SIGKILL to the group after 15 s."""
    with tempfile.NamedTemporaryFile(prefix="orchestra-bench-", suffix=".log") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(os.environ) | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Started(process, Path(log.name))
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
