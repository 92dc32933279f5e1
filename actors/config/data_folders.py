"""A list of the data folders of this user's running `orchestra up` processes, for other commands.

Each `orchestra up` writes a file with its folder's path (a note) to `$XDG_STATE_HOME/orchestra/up`
(`~/.local/state/orchestra/up`). A note is valid while the folder's lock is held.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from actors.nats_server.lock import find_running
from orchestration.errors import InvalidRequest

log = logging.getLogger(__name__)

MAX_NOTES = 256
"""Maximum notes that are read. Notes of killed processes are deleted."""


@contextmanager
def register_data_folder(folder: Path) -> Iterator[None]:
    """Let other commands of this user find `folder` until the block ends."""
    note = _notes() / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    try:
        note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        note.write_text(str(folder), encoding="utf-8")
    except OSError as error:
        log.info("other commands need --data %s: cannot write %s (%s)", folder, note, error)
    try:
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)


def data_folders_in_use(default: Path) -> Path | None:
    """The data folder of this user's running `orchestra up`: `default` if that is in use; None if none runs.

    Raises `InvalidRequest` with the folders if several run and none of them uses `default`.
    """
    if find_running(default):
        return default
    running = sorted(_running_folders())
    if len(running) > 1:
        names = ", ".join(str(folder) for folder in running)
        raise InvalidRequest(
            f"several `orchestra up` run here: choose one with --data: {names}", param="data"
        )
    return running[0] if running else None


def _running_folders() -> Iterator[Path]:
    try:
        notes = sorted(_notes().iterdir())[:MAX_NOTES]
    except OSError:
        return
    for note in notes:
        with suppress(OSError, UnicodeDecodeError):
            folder = Path(note.read_text(encoding="utf-8"))
            if find_running(folder):
                yield folder
            else:
                note.unlink(missing_ok=True)


def _notes() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "orchestra" / "up"
