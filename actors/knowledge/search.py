"""Searches passages by vectors and by words, and fuses the two rankings.

Vectors are compared one by one: exact, and fast enough up to about 100,000 passages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.knowledge.document import SearchHit
from actors.knowledge.schema import connect, store_errors

CANDIDATES = 50
"""Passages of each ranking that are fused."""
RRF_K = 60
"""The constant of reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009."""
MAX_WORDS = 48
"""Maximum words of a question in the word search."""
_WORD = re.compile(r"\w+")


class Search:
    """Searches one database. Use it from one thread at a time; close it at the end."""

    def __init__(self, file: Path) -> None:
        """Raises `StoreBroken`."""
        self.file = file
        self._db: Any = connect(file, write=False)

    def close(self) -> None:
        self._db.close()

    @property
    def model(self) -> str:
        """The embedding model whose vectors are stored."""
        with store_errors(self.file):
            return str(self._db.execute("SELECT model FROM about").fetchall()[0][0])

    @property
    def empty(self) -> bool:
        with store_errors(self.file):
            return not self._db.execute("SELECT 1 FROM passages LIMIT 1").fetchall()

    def find(
        self, text: str, vector: NDArray[np.float32], limit: int, min_similarity: float = -1.0
    ) -> list[SearchHit]:
        """The best passages for `text` with the vector `vector`, best first, with at least the similarity
        `min_similarity`. Raises `StoreBroken`."""
        with store_errors(self.file):
            by_meaning = self._by_meaning(vector)
            scores = fuse([id for id, _ in by_meaning], self._by_words(text))
            similar = {id: 1 - distance for id, distance in by_meaning}
            similar |= self._similarities(vector, [id for id in scores if id not in similar])
            fit = [id for id in scores if similar[id] >= min_similarity]
            best = sorted(fit, key=lambda id: -scores[id])[:limit]
            return [self._passage(id, scores[id], similar[id]) for id in best]

    def _by_meaning(self, vector: NDArray[np.float32]) -> list[tuple[int, float]]:
        rows: list[tuple[int, float]] = self._db.execute(
            "SELECT id, distance FROM vectors WHERE embedding MATCH ? AND k = ? ORDER BY distance",
            (vector.tobytes(), CANDIDATES),
        ).fetchall()
        return rows

    def _by_words(self, text: str) -> list[int]:
        """Passages with any of the words, ranked by BM25."""
        all_words = _WORD.findall(text)
        # Short words are in every passage, which is slow to score; codes and abbreviations are kept.
        rare = [word for word in all_words if len(word) > 3 or word.isupper() or not word.isalpha()]
        words = dict.fromkeys(word.lower() for word in rare or all_words)
        query = " OR ".join(f'"{word}"' for word in list(words)[:MAX_WORDS])
        if not query:
            return []
        rows = self._db.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, 2.0, 1.0) LIMIT ?",
            (query, CANDIDATES),
        )
        return [id for (id,) in rows]

    def _similarities(self, vector: NDArray[np.float32], ids: Sequence[int]) -> dict[int, float]:
        marks = ",".join("?" * len(ids))
        rows = self._db.execute(f"SELECT id, embedding FROM vectors WHERE id IN ({marks})", ids)
        return {id: float(np.frombuffer(stored, np.float32) @ vector) for id, stored in rows}

    def _passage(self, id: int, score: float, similarity: float) -> SearchHit:
        ((source, title, heading, text),) = self._db.execute(
            "SELECT source, title, heading, text FROM passages JOIN documents ON documents.id = document "
            "WHERE passages.id = ?",
            (id,),
        ).fetchall()
        return SearchHit(
            source=source, title=title, heading=heading, text=text, score=score, similarity=similarity
        )


def fuse(*rankings: Iterable[int]) -> dict[int, float]:
    """The score of each passage in any of the rankings, best first: the sum of 1 / (60 + its rank)."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, passage in enumerate(ranking, 1):
            scores[passage] = scores.get(passage, 0.0) + 1 / (RRF_K + rank)
    return scores
