"""One engine with the real models for all tests of this folder: loading is dear."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.engine.onnx_backend import OnnxBackend
from actors.engine.settings import OnnxSettings
from tests.fixtures.models import minilm_folder, smollm2_folder


@pytest.fixture(scope="session")
def chat_folder() -> Path:
    return smollm2_folder()


@pytest.fixture(scope="session")
def backend(chat_folder: Path) -> Iterator[OnnxBackend]:
    """SmolLM2 and MiniLM with default settings, but few places to wait."""
    made = OnnxBackend([chat_folder, minilm_folder()], OnnxSettings(max_waiting=8))
    asyncio.run(made.start())
    yield made
    asyncio.run(made.close())


@pytest.fixture(scope="session")
def stepwise(chat_folder: Path) -> Iterator[OnnxBackend]:
    """SmolLM2 without lookahead."""
    made = OnnxBackend([chat_folder], OnnxSettings(lookahead=False))
    asyncio.run(made.start())
    yield made
    asyncio.run(made.close())
