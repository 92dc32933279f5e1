"""The files of one embedded server: `<data>/nats` and what lies in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from actors.child_server.files import last_lines, make_private
from actors.nats_server.errors import DataFolderUnusable


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """Paths below one data folder."""

    data: Path
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        # nats-server changes no directory, but an absolute path reads better in its log.
        object.__setattr__(self, "root", self.data.expanduser().absolute() / "nats")

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    @property
    def ports(self) -> Path:
        return self.root / "ports"

    @property
    def store(self) -> Path:
        """The folder of JetStream's streams; the server adds this last part of the path itself."""
        return self.root / "jetstream"

    @property
    def stderr(self) -> Path:
        """The server's output before its log is open, and while it crashes."""
        return self.root / "server.err"

    def prepare(self) -> None:
        """Make the folders, readable by their owner only. Raises `DataFolderUnusable`."""
        try:
            make_private(self.root, self.ports, self.store)
        except OSError as error:
            raise DataFolderUnusable(
                f"cannot write to the data folder {str(self.root)!r}: {error.strerror or error} "
                f"({error.filename}); choose another with --data, or give this user the right to write there"
            ) from error

    def log_end(self, pid: int, lines: int = 12) -> str:
        """The path of the log, and the last `lines` that process `pid` wrote, for an error message."""
        mark = f"[{pid}] "
        found = [line.removeprefix(mark) for line in last_lines(self.log) if line.startswith(mark)]
        tail = "\n".join(found[-lines:] + last_lines(self.stderr)[-lines:])
        return f"the end of its log {self.log}:\n{tail}"
