"""Brings documents into the store: read, cut into passages, embedded, put."""

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
"""Passages between two signs of progress, and what a kill costs at most."""

Status = Literal["added", "changed", "unchanged"]
OnProgress = Callable[[int, int], None]
"""Passages done, of how many."""


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of a document. `embedded` of its passages had no vector yet; `encoding` is what its text
    was read as, '' where it was not read or says so itself."""

    status: Status
    passages: int
    embedded: int
    encoding: str = ""


class Ingest:
    """Adds one document after another."""

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
        """Store the document at `source`, unless it is there and has not changed. With an `encoding` it is
        read in that one, whatever is there.

        Raises a `KnowledgeError` that says why it cannot be; the store is as it was then.
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
        """A vector for each passage's digest, and how many had to be made. Each is kept in the store as soon
        as it is there, so that who is killed begins where it was."""
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
