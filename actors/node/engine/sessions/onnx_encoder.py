"""A sentence encoder in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actors.node.engine.sessions.onnx import load_session
from actors.node.engine.settings import OnnxSettings
from orchestration.errors import BackendFailed


class OnnxEncoder:
    """A sentence encoder: `input_ids` and `attention_mask`, int64 [batch, sequence], in; unit vectors
    `embedding`, float32 [batch, hidden], out."""

    def __init__(self, folder: Path, settings: OnnxSettings) -> None:
        self._session = load_session(folder, settings)
        have = {value.name for value in self._session.get_inputs()}
        if have != {"input_ids", "attention_mask"}:
            raise BackendFailed(f"the embedding graph in {str(folder)!r} has the inputs {sorted(have)}")

    def embed(self, inputs: Sequence[list[int]]) -> NDArray[np.float32]:
        """The vectors [inputs, hidden] of tokenised texts, computed in groups of like length."""
        groups = alike(list(map(len, inputs)))
        parts = [self._run([inputs[at] for at in group]) for group in groups]
        vectors: NDArray[np.float32] = np.concatenate(parts)[np.argsort(np.concatenate(groups))]
        return vectors

    def _run(self, inputs: Sequence[list[int]]) -> NDArray[np.float32]:
        ids = np.zeros((len(inputs), max(map(len, inputs))), np.int64)
        mask = np.zeros_like(ids)
        for at, tokens in enumerate(inputs):
            ids[at, : len(tokens)] = tokens
            mask[at, : len(tokens)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask}
        vectors: NDArray[np.float32] = self._session.run(["embedding"], feeds)[0]
        return vectors


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of `lengths` in groups to be padded to their longest, which wastes at most a third."""
    groups: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and lengths[at] <= 1.5 * lengths[groups[-1][0]]:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups
