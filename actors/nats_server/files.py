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
    def stderr(self) -> Path:
        """What the server says before its log is open, or while it crashes."""
        return self.root / "server.err"

    def prepare(self) -> None:
        """Make the folders, readable by their owner only. Raises `DataFolderUnusable`."""
        try:
            for folder in (self.root, self.ports, self.root / "jetstream"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                probe = folder / ".writable"
                probe.touch()
                probe.unlink()
        except OSError as error:
            raise DataFolderUnusable(
                f"cannot write to the data folder {str(self.root)!r}: {error.strerror or error} "
                f"({error.filename}); choose another with --data, or give this user the right to write there"
            ) from error

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of the server's own words, for an error message; empty if there are none."""
        found = []
        for path in (self.log, self.stderr):
            try:
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - 16_384))
                    found += file.read().decode(errors="replace").splitlines()[-lines:]
            except OSError:
                continue
        return "\n".join(found)
