"""The files of one tritonserver of our own: its log, its lock, and the backends beside them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.triton.errors import TritonFolderUnusable

_TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class TritonFiles:
    """Paths below the server's own folder."""

    root: Path

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    def prepare(self) -> None:
        """Make the folder, readable by its owner only. Raises `TritonFolderUnusable`."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.log.open("ab").close()
        except OSError as error:
            raise TritonFolderUnusable(
                f"cannot write to Triton's folder {str(self.root)!r}: {error.strerror or error}; choose "
                "another with --data, or give this user the right to write there"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one server. Raises `TritonFolderUnusable` if another server holds it."""
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise TritonFolderUnusable(
                f"a tritonserver of another node runs over {str(self.root)!r}: give this one another --data, "
                "or have it use that server with --triton-url"
            ) from error
        finally:
            os.close(handle)

    def rotate(self, max_bytes: int) -> None:
        """Put a log that has grown long aside, over the one that was put aside before."""
        if self.log_bytes() > max_bytes:
            self.log.replace(self.log.with_suffix(".log.1"))

    def log_bytes(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def log_tail(self, since: int = 0, lines: int = 12) -> str:
        """The last lines of what the server said after `since` bytes, without its tables; may be empty."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(since, self.log_bytes() - _TAIL_BYTES))
                said = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join([line for line in said if line and line[0] not in "|+"][-lines:])
