"""Runs an imported graph step by step, plainly: what the tests of the importer ask of a runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from actors.models.manifest import ModelManifest

Floats = NDArray[np.float32]


class OnnxLlama:
    """A session on a model folder; the caches of keys and values are grown by copying."""

    def __init__(self, folder: Path) -> None:
        self.manifest = ModelManifest.read(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def empty(self, rows: int = 1) -> list[Floats]:
        m = self.manifest
        shape = (rows, m.kv_heads, 0, m.head_dim)
        return [np.zeros(shape, np.float32) for _ in range(2 * m.layers)]

    def step(
        self,
        ids: NDArray[np.int64],
        lengths: list[int],
        cache: list[Floats],
        picks: list[int],
    ) -> tuple[Floats, list[Floats]]:
        """Logits [picks, vocabulary] and the caches; `lengths` are each row's tokens after this step."""
        feed: dict[str, NDArray[Any]] = {
            "input_ids": ids,
            "seqlens_k": np.array(lengths, np.int32) - 1,
            "total_sequence_length": np.array(max(lengths), np.int32),
            "logits_index": np.array(picks, np.int64),
        }
        for layer in range(self.manifest.layers):
            feed[f"past_key_values.{layer}.key"] = cache[2 * layer]
            feed[f"past_key_values.{layer}.value"] = cache[2 * layer + 1]
        logits, *present = self.session.run(None, feed)
        return logits, present

    def logits(self, ids: list[int]) -> Floats:
        """Logits [tokens, vocabulary] of one sequence in one call."""
        row = np.array([ids], np.int64)
        return self.step(row, [len(ids)], self.empty(), list(range(len(ids))))[0]
