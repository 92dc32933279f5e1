"""Documents added without a command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from actors.embedding.embedder import Embedder
from actors.knowledge.ingest import Ingest
from actors.knowledge.reader import DocumentReader
from actors.knowledge.settings import KnowledgeSettings
from actors.knowledge.store import Store, store_file
from actors.models.tokenizer import Tokenizer

MODEL = "all-minilm-l6-v2"


@asynccontextmanager
async def ingest(data: Path, embedder: Embedder, tokenizer: Tokenizer) -> AsyncIterator[Ingest]:
    """Adds documents to the store in `data`."""
    settings = KnowledgeSettings()
    with Store(store_file(data), model=MODEL, max_mb=200) as store, DocumentReader(settings) as reader:
        yield Ingest(store, reader, embedder, lambda text: len(tokenizer.encode_sentence(text)) - 2, settings)
