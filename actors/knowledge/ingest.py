"""Adds documents to the store: reads, splits, embeds and stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from actors.embedding.embedder import Embedder
from actors.knowledge.chunking import Count, passages
from actors.knowledge.document import Passage
from actors.knowledge.reader import DocumentReader
from actors.knowledge.settings import KnowledgeSettings
from actors.knowledge.sources import read_source
from actors.knowledge.store import Store, Vector

BATCH = 32
"""Passages per batch: between two progress reports, and the maximum loss when the process is killed."""

Status = Literal["added", "changed", "unchanged"]
OnProgress = Callable[[int, int], None]
"""Called with the number of finished passages and of all."""


@dataclass(frozen=True, slots=True)
class IngestResult:
    """The result for a document. `embedded`: passages that had no vector yet; `encoding`: the detected
    encoding, '' if it was not read or its format defines it."""

    status: Status
    passages: int
    embedded: int
    encoding: str = ""


class Ingest:
    """Adds documents to the store."""

    def __init__(
        self,
        store: Store,
        reader: DocumentReader,
        embedder: Embedder,
        count: Count,
        settings: KnowledgeSettings,
    ) -> None:
        self.store = store
        self.reader = reader
        self.embedder = embedder
        self.count = count
        self.settings = settings

    async def add(
        self, source: str, on_progress: OnProgress = lambda done, total: None, *, encoding: str = ""
    ) -> IngestResult:
        """Store the document at `source` unless it is stored and unchanged. With an `encoding` it is always
        read again.

        Raises a `KnowledgeError` with the reason; the store is unchanged then.
        """
        known = self.store.find(source)
        found = await read_source(source, self.settings)
        digest = hashlib.sha256(found.data).digest()
        if known is not None and known.digest == digest and not encoding:
            return IngestResult("unchanged", known.passages, 0)
        reading = self.reader.read(found.data, found.kind, encoding)
        cut = passages(reading, self.count)
        vectors, embedded = await self._embed(cut, on_progress)
        title = " ".join((reading.title or found.name or source).split())[:200]
        self.store.put(source, title, (digest, len(found.data)), cut, vectors)
        status: Status = "added" if known is None else "changed"
        return IngestResult(status, len(cut), embedded, reading.encoding)

    async def _embed(self, cut: list[Passage], on_progress: OnProgress) -> tuple[dict[bytes, Vector], int]:
        """A vector for each passage's digest, and the number of new ones. Each batch is stored at once, so
        that an interrupted run can continue."""
        known = self.store.known([passage.digest for passage in cut])
        missing = list({each.digest: each for each in cut if each.digest not in known}.values())
        for at in range(0, len(missing), BATCH):
            on_progress(len(cut) - len(missing) + at, len(cut))
            some = missing[at : at + BATCH]
            rows: list[Vector] = list(await self.embedder.vectors([each.embedded for each in some]))
            made = {each.digest: row for each, row in zip(some, rows, strict=True)}
            self.store.stage(made)
            known |= made
        on_progress(len(cut), len(cut))
        return known, len(missing)
