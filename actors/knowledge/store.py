"""The documents of a data folder: put whole, listed, removed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from actors.knowledge.document import Document, Passage
from actors.knowledge.errors import StoreBroken
from actors.knowledge.schema import connect, create, store_errors

MB = 1_000_000
STAGED_S = 7 * 86_400
"""How long vectors of a document that was never finished are kept."""
_SOME = 500
"""Values in one statement."""

Vector = NDArray[np.float32]


def store_file(data: Path) -> Path:
    """The database of a data folder."""
    return data / "knowledge" / "knowledge.db"


class Store:
    """Writes. `model` makes the vectors: a store has one for all its life."""

    def __init__(self, file: Path, *, model: str, max_mb: float) -> None:
        """Raises `StoreBroken`, also where the store was made with another model, and `StoreFull`."""
        self.file = file
        self._db = connect(file, write=True)
        try:
            with store_errors(file):
                page = self._db.pragma("page_size")
                self._db.pragma("max_page_count", max(1, int(max_mb * MB / page)))
                with self._db:
                    create(self._db, model)
                ((made_with,),) = self._db.execute("SELECT model FROM about").fetchall()
            if made_with != model:
                raise StoreBroken(f"{file} was made with the embedding model {made_with!r}, not {model!r}")
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def find(self, source: str) -> Document | None:
        """The stored document of that source."""
        return next(iter(documents_of(self._db, "WHERE source = ?", (source,))), None)

    def known(self, digests: Sequence[bytes]) -> dict[bytes, Vector]:
        """The vectors that are there already, of stored passages and of unfinished documents."""
        found: dict[bytes, Vector] = {}
        with store_errors(self.file):
            for at in range(0, len(digests), _SOME):
                some = digests[at : at + _SOME]
                marks = ",".join("?" * len(some))
                rows = self._db.execute(
                    f"SELECT digest, vector FROM staged WHERE digest IN ({marks}) UNION ALL "
                    "SELECT digest, embedding FROM passages JOIN vectors USING (id) "
                    f"WHERE digest IN ({marks})",
                    (*some, *some),
                )
                found.update((digest, np.frombuffer(vector, np.float32)) for digest, vector in rows)
        return found

    def stage(self, vectors: Mapping[bytes, Vector]) -> None:
        """Keep vectors of a document that is not finished, so that a kill costs none of them."""
        now = time.time()
        with store_errors(self.file), self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO staged VALUES (?, ?, ?)",
                ((digest, vector.tobytes(), now) for digest, vector in vectors.items()),
            )

    def put(
        self,
        source: str,
        title: str,
        data: tuple[bytes, int],
        passages: Sequence[Passage],
        vectors: Mapping[bytes, Vector],
    ) -> None:
        """Store a document, in place of an older one of its source. `data` is the digest of its bytes and how
        many they are; `vectors` has one for every passage's digest. All of it is there afterwards, or nothing
        has changed. Raises `StoreFull`."""
        with store_errors(self.file), self._db:
            self._forget(source)
            self._db.execute(
                "INSERT INTO documents (source, title, digest, bytes, added_at) VALUES (?, ?, ?, ?, ?)",
                (source, title, *data, time.time()),
            )
            document = self._db.last_insert_rowid()
            for passage in passages:
                self._db.execute(
                    "INSERT INTO passages (document, heading, text, digest) VALUES (?, ?, ?, ?)",
                    (document, passage.heading, passage.text, passage.digest),
                )
                self._db.execute(
                    "INSERT INTO vectors (id, embedding) VALUES (?, ?)",
                    (self._db.last_insert_rowid(), vectors[passage.digest].tobytes()),
                )
            self._unstage(passage.digest for passage in passages)

    def remove(self, source: str) -> bool:
        """Whether there was such a document."""
        there = self.find(source) is not None
        with store_errors(self.file), self._db:
            self._forget(source)
        return there

    def _forget(self, source: str) -> None:
        known = self.find(source)
        if known is None:
            return
        self._db.execute(
            "DELETE FROM vectors WHERE id IN (SELECT id FROM passages WHERE document = ?)", (known.id,)
        )
        self._db.execute("DELETE FROM passages WHERE document = ?", (known.id,))
        self._db.execute("DELETE FROM documents WHERE id = ?", (known.id,))

    def _unstage(self, digests: Iterable[bytes]) -> None:
        self._db.executemany("DELETE FROM staged WHERE digest = ?", ((digest,) for digest in digests))
        self._db.execute("DELETE FROM staged WHERE at < ?", (time.time() - STAGED_S,))


def documents(file: Path) -> list[Document]:
    """All that are stored, by source. Raises `StoreBroken`."""
    if not file.exists():
        return []
    connection = connect(file, write=False)
    try:
        with store_errors(file):
            return documents_of(connection)
    finally:
        connection.close()


def documents_of(connection: Any, where: str = "", values: Sequence[str] = ()) -> list[Document]:
    rows = connection.execute(
        "SELECT id, source, title, digest, bytes, added_at, "
        "(SELECT count(*) FROM passages WHERE document = documents.id) "
        f"FROM documents {where} ORDER BY source",
        values,
    )
    return [
        Document(
            id=id, source=source, title=title, digest=digest, bytes=size, added_at=added_at, passages=count
        )
        for id, source, title, digest, size, added_at, count in rows
    ]
