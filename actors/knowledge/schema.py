"""The database of passages: SQLite with FTS5 for words and sqlite-vec for vectors, in one file.

One file in WAL mode: a transaction is whole or not there, whatever is killed; readers go on while one writes.
The standard library's sqlite3 cannot load extensions on every Python, so it is apsw's SQLite.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from actors.installation.optional_imports import needs_extra
from actors.knowledge.errors import StoreBroken, StoreFull
from orchestration.errors import Unavailable

if TYPE_CHECKING:
    import apsw

VERSION = 1
DIMENSIONS = 384
"""Dimensions of all-MiniLM-L6-v2's vectors."""
BUSY_MS = 30_000
"""How long a writer waits for another writer."""

_TABLES = """
CREATE TABLE about (model TEXT NOT NULL);
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE, title TEXT NOT NULL, digest BLOB NOT NULL,
    bytes INTEGER NOT NULL, added_at REAL NOT NULL);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents, heading TEXT NOT NULL,
    text TEXT NOT NULL, digest BLOB NOT NULL);
CREATE INDEX passages_document ON passages (document);
CREATE INDEX passages_digest ON passages (digest);
CREATE TABLE staged (digest BLOB PRIMARY KEY, vector BLOB NOT NULL, at REAL NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (
    heading, text, content='passages', content_rowid='id', tokenize='porter unicode61 remove_diacritics 2');
CREATE TRIGGER passages_in AFTER INSERT ON passages BEGIN
    INSERT INTO words (rowid, heading, text) VALUES (new.id, new.heading, new.text);
END;
CREATE TRIGGER passages_out AFTER DELETE ON passages BEGIN
    INSERT INTO words (words, rowid, heading, text) VALUES ('delete', old.id, old.heading, old.text);
END;
"""


def connect(file: Path, *, write: bool) -> apsw.Connection:
    """Connect to the database; a writer creates it if missing.

    Raises `StoreBroken`, and `ExtraMissing`.
    """
    with needs_extra("knowledge", "the knowledge base"):
        import apsw
        import sqlite_vec  # type: ignore[import-untyped]
    with store_errors(file):
        if write:
            file.parent.mkdir(parents=True, exist_ok=True)
        mode = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE if write else apsw.SQLITE_OPEN_READWRITE
        connection = apsw.Connection(str(file), flags=mode)
        connection.set_busy_timeout(BUSY_MS)
        connection.transaction_mode = "IMMEDIATE"  # a deferred transaction could not wait for another writer
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.enable_load_extension(False)
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "normal")  # a power failure may lose the last documents only
        if not write:
            connection.pragma("query_only", True)
        version = connection.pragma("user_version")
    if version > VERSION or (version == 0 and not write):
        connection.close()
        raise StoreBroken(
            f"{file} is not a knowledge base of this Orchestra: its version is {version}, not {VERSION}"
        )
    return connection


def create(connection: apsw.Connection, model: str) -> None:
    """Create the tables if missing. Call it within a transaction."""
    if connection.pragma("user_version") == VERSION:
        return
    connection.execute(_TABLES)
    connection.execute(
        "CREATE VIRTUAL TABLE vectors USING vec0(id INTEGER PRIMARY KEY, "
        f"embedding float[{DIMENSIONS}] distance_metric=cosine)"
    )
    connection.execute("INSERT INTO about VALUES (?)", (model,))
    connection.pragma("user_version", VERSION)


def _is_full(folder: Path) -> bool:
    """Whether the disk is full; SQLite often reports only a failed read or write."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free < 65_536


@contextmanager
def store_errors(file: Path) -> Iterator[None]:
    """Convert SQLite's errors to Orchestra's."""
    import apsw

    try:
        yield
    except apsw.FullError as error:
        raise StoreFull(
            f"no space in {file}: the disk is full, or knowledge.max_store_mb is reached; documents stored "
            "before are intact"
        ) from error
    except apsw.BusyError as error:
        raise Unavailable(
            f"another process has been writing {file} for more than {BUSY_MS / 1000:g} s; try again"
        ) from error
    except (apsw.Error, OSError) as error:
        if _is_full(file.parent):
            raise StoreFull(f"no space for {file}: the disk is full") from error
        raise StoreBroken(f"cannot use the knowledge base {file}: {error}") from error
