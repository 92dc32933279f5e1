"""The data folders that this user's `orchestra up` processes use, so that other commands find them.

Each `orchestra up` with a folder of its own leaves a note with the folder's path in
`$XDG_STATE_HOME/orchestra/up` (`~/.local/state/orchestra/up`). A note counts while the folder's lock is held.
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
"""Notes looked at; those of processes that were killed are removed on the way."""


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
    """The folder of this user's one running `orchestra up`: `default` where that runs, None where none does.

    Raises `InvalidRequest` naming the folders when several run and none of them is `default`.
    """
    if find_running(default):
        return default
    found = sorted(_running_folders())
    if len(found) > 1:
        names = ", ".join(str(folder) for folder in found)
        raise InvalidRequest(
            f"several `orchestra up` run here: choose one with --data: {names}", param="data"
        )
    return found[0] if found else None


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
