"""The files of one tritonserver of our own: its log, its lock, and the backends beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.child_server import FolderLock
from actors.child_server.files import last_lines, make_private
from actors.triton.errors import TritonFolderUnusable


@dataclass(frozen=True, slots=True)
class TritonFiles:
    """Paths below the server's own folder."""

    root: Path

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def prepare(self) -> None:
        """Make the folder, readable by its owner only. Raises `TritonFolderUnusable`."""
        try:
            make_private(self.root)
            self.log.open("ab").close()
        except OSError as error:
            raise TritonFolderUnusable(
                f"cannot write to Triton's folder {str(self.root)!r}: {error.strerror or error}; choose "
                "another with --data, or give this user the right to write there"
            ) from error

    async def acquire(self, lock: FolderLock) -> None:
        """Take the lock of the folder, which one server has at a time. Raises `TritonFolderUnusable`."""
        if not await lock.acquire(0):
            raise TritonFolderUnusable(
                f"a tritonserver of another node uses {str(self.root)!r}: give this one another --data, "
                "or have it use that server with --triton-url"
            )

    def rotate(self, max_bytes: int) -> None:
        """Put a log that has grown long aside, over the one that was put aside before."""
        if self.log_bytes() > max_bytes:
            self.log.replace(self.log.with_suffix(".log.1"))

    def log_bytes(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def log_end(self, since: int = 0, lines: int = 12) -> str:
        """The log's path and its last `lines` after `since` bytes, without tables, for an error message."""
        logged = [line for line in last_lines(self.log, since=since) if line and line[0] not in "|+"]
        return "\n".join([f"the end of its log {self.log}:", *logged[-lines:]])
