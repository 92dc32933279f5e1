"""Fixtures of the knowledge base's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.embedding.embedder import Embedder
from actors.models.tokenizer import Tokenizer
from tests.fixtures.models import minilm_folder


@pytest.fixture(scope="session")
def embedder() -> Iterator[Embedder]:
    made = Embedder(minilm_folder())
    yield made
    made.close()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(minilm_folder())
