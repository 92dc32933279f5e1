"""The files of a child server: its folders, and the end of its log."""

from __future__ import annotations

from pathlib import Path

_TAIL_BYTES = 16_384


def make_private(*folders: Path) -> None:
    """Make folders that only their owner can read, and check that they can be written. Raises `OSError`."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may check at the same time


def last_lines(path: Path, *, since: int = 0) -> list[str]:
    """The lines in the last 16 KB of a file, without its first `since` bytes; none when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(since, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
