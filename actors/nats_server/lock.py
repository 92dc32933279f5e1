"""Who holds a data folder: at most one nats-server, for as long as it lives."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from actors.nats_server.errors import DataFolderInUse
from actors.nats_server.files import ServerFiles

_LOCK_WAIT_S = 2.0
"""After SIGKILL of an orchestra its nats-server goes within milliseconds, and holds the lock until then."""


class DataLock:
    """Holds a data folder for one server: two on the same JetStream files would destroy them.

    A `flock` on an open file that the nats-server inherits: it is free again only when both the parent
    and the server are gone, however they went. Two open files in one process exclude each other too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, wait_s: float = _LOCK_WAIT_S) -> None:
        """Take the lock; blocks for up to `wait_s` seconds. Raises `DataFolderInUse`."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.02)
                    continue
                os.close(fd)
                raise DataFolderInUse(_in_use(self._path)) from None
        self._fd = fd
        self.note({"pid": os.getpid()})

    def note(self, facts: dict[str, Any]) -> None:
        """Write down who holds the folder, for error messages and for `running`."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(facts).encode(), 0)

    def fileno(self) -> int:
        """The descriptor for the server to inherit."""
        return self._fd

    def release(self) -> None:
        """Let go; may be called twice."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def running(data: Path) -> dict[str, Any] | None:
    """Facts (`pid`, `url`, `server_pid`) about the server that holds this data folder now, or None."""
    path = ServerFiles(data).lock
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # nobody holds it
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(fd)


def _read(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_bytes() or b"{}")
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _in_use(path: Path) -> str:
    facts = _read(path)
    holder = f"process {facts['pid']}" if "pid" in facts else "another process"
    there = f", serving {facts['url']}" if "url" in facts else ""
    left = ""
    if "pid" in facts and not Path(f"/proc/{facts['pid']}").exists() and Path("/proc/self").exists():
        left = (
            f"; that process is gone but its nats-server (process {facts.get('server_pid')}) is not: end it"
        )
    join = f"join it with --nats {facts['url']}" if "url" in facts else "stop that one"
    return (
        f"the data folder {str(path.parent)!r} is in use by {holder}{there}{left}; "
        f"{join}, or start this one with another --data"
    )
