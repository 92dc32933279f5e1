"""One engine on OpenVINO for all tests of this folder. They are skipped where the extra is not installed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from actors.engine.settings import OpenVinoSettings
from actors.installation.optional_imports import install_command, is_installed
from tests.fixtures.models import minilm_folder, smollm2_folder

if TYPE_CHECKING:
    from actors.engine.openvino_backend import OpenVinoBackend


@pytest.fixture(scope="session", autouse=True)
def _extra() -> None:
    if not is_installed("openvino"):
        pytest.skip(f"openvino is not installed: {install_command('openvino')}")


@pytest.fixture(scope="session")
def chat_folder() -> Path:
    return smollm2_folder()


@pytest.fixture(scope="session")
def backend(chat_folder: Path) -> Iterator[OpenVinoBackend]:
    """SmolLM2 and MiniLM with default settings, but few places to wait."""
    from actors.engine.openvino_backend import OpenVinoBackend

    made = OpenVinoBackend([chat_folder, minilm_folder()], OpenVinoSettings(max_waiting=8))
    asyncio.run(made.start())
    yield made
    asyncio.run(made.close())


@pytest.fixture(scope="session")
def stepwise(chat_folder: Path) -> Iterator[OpenVinoBackend]:
    """SmolLM2 without lookahead."""
    from actors.engine.openvino_backend import OpenVinoBackend

    made = OpenVinoBackend([chat_folder], OpenVinoSettings(lookahead=False))
    asyncio.run(made.start())
    yield made
    asyncio.run(made.close())
