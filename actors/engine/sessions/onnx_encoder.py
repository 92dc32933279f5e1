"""A sentence encoder in onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actors.engine.sessions.onnx import load_session
from actors.engine.settings import OnnxSettings
from actors.telemetry.memory import release_memory
from orchestration.errors import BackendFailed

RUN_TOKENS = 1024
"""Maximum tokens of one run, padding included; a longer text gets its own run. Larger runs of MiniLM are not
faster on a CPU, and one of 16 texts of 512 tokens takes 550 MB instead of 60."""
_SMALL_TOKENS = 256
"""Runs of up to this many tokens free too little memory to return it to the system."""


class OnnxEncoder:
    """A sentence encoder: `input_ids` and `attention_mask`, int64 [batch, sequence], in; unit vectors
    `embedding`, float32 [batch, hidden], out. The memory of larger runs is returned to the system."""

    def __init__(self, folder: Path, settings: OnnxSettings) -> None:
        self._session = load_session(folder, settings)
        have = {value.name for value in self._session.get_inputs()}
        if have != {"input_ids", "attention_mask"}:
            raise BackendFailed(f"the embedding graph in {str(folder)!r} has the inputs {sorted(have)}")

    def embed(self, inputs: Sequence[list[int]]) -> NDArray[np.float32]:
        """The vectors [inputs, hidden] of tokenised texts, computed in groups of similar length."""
        groups = group_by_length(list(map(len, inputs)), RUN_TOKENS)
        parts = [self._run([inputs[at] for at in group]) for group in groups]
        vectors: NDArray[np.float32] = np.concatenate(parts)[np.argsort(np.concatenate(groups))]
        if sum(map(len, inputs)) > _SMALL_TOKENS:
            release_memory()
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


def group_by_length(lengths: Sequence[int], max_tokens: float = math.inf) -> list[list[int]]:
    """Indices of `lengths` in groups of similar length; padding to the longest wastes at most a third.

    A group has at most `max_tokens` tokens including padding, or is one text.
    """
    groups: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[at]
        last = groups[-1] if groups else []
        if last and length <= 1.5 * lengths[last[0]] and (len(last) + 1) * length <= max_tokens:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups
