"""A lock on a server's folder, for as long as a process holds it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

_POLL_S = 0.02


class FolderLock:
    """A `flock` on a file, which also says who holds it: two servers over one folder would destroy its files.

    A child process that inherits the open file holds the lock too: it is free only when both are gone,
    however they ended. Two open files in one process exclude each other as well.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    async def acquire(self, wait_s: float) -> bool:
        """Take the lock within `wait_s` seconds; False when another process keeps it. Raises `OSError`."""
        until = time.monotonic() + wait_s
        while not self._try():
            if time.monotonic() > until:
                return False
            await asyncio.sleep(_POLL_S)
        self.note()
        return True

    def _try(self) -> bool:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                return False
            raise
        self._fd = fd
        return True

    def note(self, **facts: Any) -> None:
        """Write facts about the holder into the file, beside this process's `pid`, for `lock_holder`."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps({"pid": os.getpid()} | facts).encode(), 0)

    def fileno(self) -> int:
        """The descriptor for a child process to inherit."""
        return self._fd

    def release(self) -> None:
        """Release the lock; harmless when it is not held."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def lock_holder(path: Path) -> dict[str, Any] | None:
    """The facts that the present holder of the lock file noted, or None when it is free."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return read_facts(path)
    finally:
        os.close(fd)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts in a lock file; empty when there are none."""
    try:
        facts = json.loads(path.read_bytes() or b"{}")
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
