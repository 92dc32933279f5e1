"""The files of one embedded server: `<data>/nats` and what lies in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

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
        """Where JetStream keeps its streams; the server adds this last part of the path itself."""
        return self.root / "jetstream"

    @property
    def stderr(self) -> Path:
        """What the server says before its log is open, or while it crashes."""
        return self.root / "server.err"

    def prepare(self) -> None:
        """Make the folders, readable by their owner only. Raises `DataFolderUnusable`."""
        try:
            for folder in (self.root, self.ports, self.store):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                probe = folder / ".writable"
                probe.touch()
                probe.unlink(missing_ok=True)  # another orchestra may be looking too
        except OSError as error:
            raise DataFolderUnusable(
                f"cannot write to the data folder {str(self.root)!r}: {error.strerror or error} "
                f"({error.filename}); choose another with --data, or give this user the right to write there"
            ) from error

    def log_tail(self, pid: int, lines: int = 12) -> str:
        """The last lines that the server of this process id said, for an error message; may be empty."""
        mark = f"[{pid}] "
        found = [line.removeprefix(mark) for line in _end(self.log) if line.startswith(mark)][-lines:]
        return "\n".join(found + _end(self.stderr)[-lines:])


def _end(path: Path) -> list[str]:
    """The lines in the last 16 KB of a file, none if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
