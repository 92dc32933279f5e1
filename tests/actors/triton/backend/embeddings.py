"""Asking a backend for vectors."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from actors.backends.base import Backend
from orchestration.messages import EmbeddingGeneration, Vectors


async def vectors(backend: Backend, model: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors [texts, hidden]."""
    generation = EmbeddingGeneration(id="test.1", model=model, inputs=tuple(texts))
    found: list[NDArray[np.float32]] = []
    async for output in backend.generate(generation):
        if isinstance(output, Vectors):
            assert output.index == len(found)
            found += [np.frombuffer(base64.b64decode(each), "<f4") for each in output.vectors]
    return np.stack(found)
