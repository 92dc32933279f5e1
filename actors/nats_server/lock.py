"""Which process uses a data folder: at most one nats-server, for as long as it lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.child_server.lock import FolderLock, lock_holder, read_facts
from actors.nats_server.errors import DataFolderInUse, DataFolderUnusable
from actors.nats_server.files import ServerFiles

LOCK_WAIT_S = 2.0
"""How long to wait for the lock: a nats-server whose parent was killed holds it for some milliseconds."""


async def lock_data_folder(lock: FolderLock, timeout_s: float = LOCK_WAIT_S) -> None:
    """Take the lock within `timeout_s`. Raises `DataFolderInUse` or `DataFolderUnusable`."""
    try:
        acquired = await lock.acquire(timeout_s)
    except OSError as error:
        raise DataFolderUnusable(
            f"cannot lock {str(lock.path)!r}: {error}; put --data on a local disk that this user can write"
        ) from error
    if not acquired:
        raise DataFolderInUse(_in_use(lock.path))


def require_unused(data: Path) -> None:
    """Raise `DataFolderInUse` when a server uses the data folder now."""
    if find_running(data) is not None:
        raise DataFolderInUse(_in_use(ServerFiles(data).lock))


def find_running(data: Path) -> dict[str, Any] | None:
    """Facts (`pid`, `url`, `server_pid`) about the server that uses this data folder now, or None."""
    return lock_holder(ServerFiles(data).lock)


def _in_use(path: Path) -> str:
    facts = read_facts(path)
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
