"""A chat model in OpenVINO, with paged attention."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from actors.engine.paged import PagedKv
from actors.engine.sessions.llama_weights import LlamaWeights
from actors.engine.sessions.openvino_graph import OpenVinoGraph, cache_names
from actors.engine.settings import OpenVinoSettings
from actors.models.manifest import ModelManifest
from orchestration.errors import BackendFailed

BLOCK = 32
"""Tokens of a block of OpenVINO's cache on a CPU."""

_ROUNDED_BLOCK = 32
"""Activations that share a scale when they are rounded to 8 bits; 0 rounds none."""

_WARM_TOKENS = 64
"""Many enough for the kernels of long prompts."""


@dataclass(frozen=True, slots=True)
class CompiledLlama:
    """A compiled model, and the weights that it has not copied."""

    model: Any
    source: LlamaWeights
    mapped: list[NDArray[Any]]


def compile_llama(folder: Path, manifest: ModelManifest, settings: OpenVinoSettings) -> CompiledLlama:
    """The compiled model of `folder`. Raises BackendFailed with the folder and OpenVINO's reason."""
    rounded = settings.activations == "int8"
    options = {
        "INFERENCE_NUM_THREADS": settings.threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # the event loop and other processes want the same cores
        # By default it takes bfloat16 where the processor has it, and other answers than elsewhere.
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _ROUNDED_BLOCK if rounded else 0,
    }
    try:
        graph = OpenVinoGraph(folder, manifest, rounded=rounded)
        compiled = ov.Core().compile_model(graph.model(), "CPU", options)
        shape = compiled.input(cache_names(0)[0]).get_partial_shape()
    except RuntimeError as error:
        raise BackendFailed(f"OpenVINO cannot load the model in {str(folder)!r}: {error}") from error
    expected = [-1, manifest.kv_heads, BLOCK, manifest.head_dim]
    if shape != ov.PartialShape(expected):
        raise BackendFailed(
            f"this OpenVINO ({ov.__version__}) keeps keys as {shape}, expected {ov.PartialShape(expected)}"
        )
    return CompiledLlama(compiled, graph.source, graph.mapped)


class OpenVinoSession:
    """Runs a compiled llama over the rows of a `PagedKv`.

    Not safe for two threads; logits are valid until the next call.
    """

    def __init__(self, compiled: CompiledLlama, kv: PagedKv) -> None:
        self._compiled = compiled
        self._request = compiled.model.create_infer_request()
        self._kv = kv
        planes = iter(kv.planes)
        for layer in range(kv.shape.layers):
            for name in cache_names(layer):
                self._request.set_tensor(name, ov.Tensor(next(planes), shared_memory=True))

    def warm_up(self, length: int) -> None:
        """Run calls of one and of many tokens: OpenVINO arranges the weights at the first of each, and needs
        the file's no more. `length` is that of a row."""
        count = min(_WARM_TOKENS, length - 1)
        self.prefill(0, np.zeros(count, np.int64), 0)
        self.decode(np.zeros(1, np.int64), np.array([count], np.int32))
        self._kv.fit(0, [0])
        self._compiled.source.forget_pages()

    def decode(self, tokens: NDArray[np.int64], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        """One step of the first `len(tokens)` rows: logits [n, vocabulary], which the caller may change.

        `tokens` [n] is the next token of each row and `lengths` [n] how many its cache holds already.
        """
        for row, length in enumerate(lengths.tolist()):
            self._kv.extend(row, length, 1)
        ends = np.arange(len(tokens) + 1, dtype=np.int32)
        return self._run(tokens, 0, lengths, ends, ends[:-1])

    def prefill(self, row: int, tokens: NDArray[np.int64], past: int) -> NDArray[np.float32]:
        """Read `tokens` [t] into `row` after the `past` tokens it holds.

        Returns the logits [vocabulary] after the last of them, which the caller may change.
        """
        logits: NDArray[np.float32] = self._read(row, tokens, past, 1)[0]
        return logits

    def verify(self, row: int, tokens: NDArray[np.int64], past: int) -> NDArray[np.float32]:
        """As `prefill`; returns the logits [t, vocabulary] after each of the tokens."""
        return self._read(row, tokens, past, len(tokens))

    def _read(self, row: int, tokens: NDArray[np.int64], past: int, picks: int) -> NDArray[np.float32]:
        """Read `tokens` into `row`: the logits of the last `picks`."""
        count = len(tokens)
        self._kv.extend(row, past, count)
        ends = np.array([0, count], np.int32)
        return self._run(tokens, row, np.array([past], np.int32), ends, np.arange(count - picks, count))

    def _run(
        self,
        tokens: NDArray[np.int64],
        first: int,
        past: NDArray[np.int32],
        begins: NDArray[np.int32],
        picks: NDArray[Any],
    ) -> NDArray[np.float32]:
        """Logits of the `picks` among `tokens`, which follow the `past` of the rows from `first` on; row i
        has those from `begins[i]` on."""
        lengths = np.diff(begins)
        totals = past + lengths
        blocks, block_begins = self._kv.tables(first, totals.tolist())
        values = {
            "input_ids": np.ascontiguousarray(tokens, np.int64),
            "position_ids": np.arange(len(tokens), dtype=np.int64) + np.repeat(past - begins[:-1], lengths),
            "past_lens": np.ascontiguousarray(past, np.int32),
            "subsequence_begins": begins,
            "block_indices": blocks,
            "block_indices_begins": block_begins,
            "logits_index": picks.astype(np.int64),
        }
        for name, value in values.items():
            self._request.set_tensor(name, ov.Tensor(value, shared_memory=True))
        longest = np.array([totals.max()], np.int32)
        self._request.set_tensor("max_context_len", ov.Tensor(longest, ov.Shape([]), ov.Type.i32))
        self._request.infer()
        logits: NDArray[np.float32] = self._request.get_tensor("logits").data
        return logits
