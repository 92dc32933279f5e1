"""Real models for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures import models
from tests.fixtures.llamacpp import smollm2_gguf as gguf_of_smollm2


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return models.smollm2_folder()


@pytest.fixture(scope="session")
def minilm() -> Path:
    return models.minilm_folder()


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    return gguf_of_smollm2()
