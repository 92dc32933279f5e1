"""Fixtures of the embedder's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.nats import module_nats

__all__ = ["module_nats"]


@pytest.fixture(scope="session")
def model_folder() -> Path:
    from tests.fixtures.models import smollm2_folder

    return smollm2_folder()
