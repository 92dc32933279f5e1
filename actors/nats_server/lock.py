"""Who holds a data folder: at most one nats-server, for as long as it lives."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from actors.nats_server.errors import DataFolderInUse, DataFolderUnusable
from actors.nats_server.files import ServerFiles

LOCK_WAIT_S = 2.0
"""After SIGKILL of an orchestra its nats-server goes within milliseconds, and holds the lock until then."""
_POLL_S = 0.02


class DataLock:
    """Holds a data folder for one server: two on the same JetStream files would destroy them.

    A `flock` on an open file that the nats-server inherits: it is free again only when both the parent
    and the server are gone, however they went. Two open files in one process exclude each other too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    async def acquire(self, wait_s: float | None = None) -> None:
        """Take the lock, within `wait_s` or `LOCK_WAIT_S` seconds.

        Raises `DataFolderInUse` or `DataFolderUnusable`.
        """
        until = time.monotonic() + (LOCK_WAIT_S if wait_s is None else wait_s)
        while not self._try():
            if time.monotonic() > until:
                raise DataFolderInUse(_in_use(self._path))
            await asyncio.sleep(_POLL_S)
        self._note({"pid": os.getpid()})

    def _try(self) -> bool:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataFolderUnusable(f"cannot open the lock file {str(self._path)!r}: {error}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError as error:
            os.close(fd)
            raise DataFolderUnusable(
                f"the file system of {str(self._path)!r} cannot lock files ({error}): "
                "put --data on a local disk"
            ) from error
        self._fd = fd
        return True

    def note_server(self, server_pid: int, url: str) -> None:
        """Write down where the server is, for error messages and for `find_running`."""
        self._note({"pid": os.getpid(), "server_pid": server_pid, "url": url})

    def _note(self, facts: dict[str, Any]) -> None:
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


def require_unused(data: Path) -> None:
    """Raise `DataFolderInUse` where a server holds the data folder now."""
    if find_running(data) is not None:
        raise DataFolderInUse(_in_use(ServerFiles(data).lock))


def find_running(data: Path) -> dict[str, Any] | None:
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
