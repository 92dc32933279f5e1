"""A chat model in onnxruntime, its cache bound in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray

from actors.engine.kv import KvCache
from actors.engine.settings import OnnxSettings
from actors.models.manifest import ModelManifest
from orchestration.errors import BackendFailed

MAX_VERIFIED = 8
"""Maximum tokens of one call with the logits of all."""


def load_session(folder: Path, settings: OnnxSettings, graph: bytes | None = None) -> Any:
    """The `InferenceSession` of `folder`, or of `graph` with the weights of `folder`.

    Raises BackendFailed with the file and onnxruntime's reason.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # By default threads spin for more than a millisecond, which takes a core from the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.spin_us > 0)))
    if settings.spin_us:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(settings.spin_us))
    options.enable_mem_pattern = False  # it caches a pattern per shape, and prompts have many
    options.enable_cpu_mem_arena = False  # it never frees what the largest run took, and saves no time
    options.log_severity_level = 3
    if graph is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    path = folder / "model.onnx"
    known = ort.get_available_providers()
    missing = [name for name in settings.providers if name not in known]
    if missing:
        raise BackendFailed(
            f"this onnxruntime has no execution provider {missing[0]!r}; it has {', '.join(known)}",
            param="providers",
        )
    try:
        return ort.InferenceSession(graph or path, options, providers=list(settings.providers))
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise BackendFailed(f"cannot load model {str(path)!r}: {error}") from error


class OnnxSession:
    """Runs a chat graph (inputs and outputs: `actors.models.manifest`) over the rows of a `KvCache`.

    Not safe for two threads; logits are valid until the next call.
    """

    def __init__(self, folder: Path, manifest: ModelManifest, settings: OnnxSettings, kv: KvCache) -> None:
        self._session = load_session(folder, settings)
        self._kv = kv
        self._vocabulary = manifest.vocabulary
        self._tokens = np.zeros(max(kv.rows, settings.prefill_chunk, MAX_VERIFIED), np.int64)
        self._lengths = np.zeros(kv.rows, np.int32)
        self._total = np.zeros(1, np.int32)
        self._picks = np.arange(kv.rows, dtype=np.int64)
        self._last = np.zeros(MAX_VERIFIED, np.int64)
        self._logits = np.zeros((max(kv.rows, MAX_VERIFIED), self._vocabulary), np.float32)
        self._decoders: dict[int, Any] = {}
        self._prefillers: dict[int, Any] = {}
        self._check_inputs(manifest)

    def decode(self, tokens: NDArray[np.int64], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        """One step of the first `len(tokens)` rows.

        `tokens` [n] is the next token of each row and `lengths` [n] how many its cache holds already.
        Returns logits [n, vocabulary], which the caller may change.
        """
        rows = len(tokens)
        self._tokens[:rows] = tokens
        self._lengths[:rows] = lengths
        self._total[0] = int(lengths.max()) + 1
        binding = self._decoders.get(rows)
        if binding is None:
            binding = self._decoders[rows] = self._bind(0, rows)
            self._bind_input(binding, "input_ids", self._tokens, (rows, 1))
            self._bind_input(binding, "logits_index", self._picks, (rows,))
            self._bind_logits(binding, rows)
        self._session.run_with_iobinding(binding)
        return self._logits[:rows]

    def prefill(self, row: int, tokens: NDArray[np.int64], past: int) -> NDArray[np.float32]:
        """Read `tokens` [t] into `row` after the `past` tokens it holds.

        Returns the logits [vocabulary] after the last of them, which the caller may change.
        """
        logits: NDArray[np.float32] = self._read(row, tokens, past, 1)[0]
        return logits

    def verify(self, row: int, tokens: NDArray[np.int64], past: int) -> NDArray[np.float32]:
        """As `prefill`, for at most `MAX_VERIFIED` tokens; returns the logits [t, vocabulary] after each."""
        return self._read(row, tokens, past, len(tokens))

    def _read(self, row: int, tokens: NDArray[np.int64], past: int, picks: int) -> NDArray[np.float32]:
        """Read `tokens` into `row`: the logits of the last `picks`."""
        count = len(tokens)
        self._tokens[:count] = tokens
        self._lengths[0] = past + count - 1
        self._total[0] = past + count
        self._last[:picks] = np.arange(count - picks, count)
        binding = self._prefillers.get(row)
        if binding is None:
            binding = self._prefillers[row] = self._bind(row, 1)
        self._bind_input(binding, "logits_index", self._last, (picks,))
        self._bind_logits(binding, picks)
        self._bind_input(binding, "input_ids", self._tokens, (1, count))
        self._session.run_with_iobinding(binding)
        return self._logits[:picks]

    def _bind(self, first: int, rows: int) -> Any:
        """A binding whose past and present are `rows` rows of the cache from row `first`."""
        binding = self._session.io_binding()
        self._bind_input(binding, "seqlens_k", self._lengths, (rows,))
        self._bind_input(binding, "total_sequence_length", self._total, ())
        shape = (rows, self._kv.shape.kv_heads, self._kv.length, self._kv.shape.head_dim)
        for layer in range(self._kv.shape.layers):
            for half, part in enumerate(("key", "value")):
                address = self._kv.array[2 * layer + half, first].ctypes.data
                binding.bind_input(f"past_key_values.{layer}.{part}", "cpu", 0, np.float32, shape, address)
                binding.bind_output(f"present.{layer}.{part}", "cpu", 0, np.float32, shape, address)
        return binding

    def _bind_logits(self, binding: Any, picks: int) -> None:
        shape = (picks, self._vocabulary)
        binding.bind_output("logits", "cpu", 0, np.float32, shape, self._logits.ctypes.data)

    @staticmethod
    def _bind_input(binding: Any, name: str, values: NDArray[Any], shape: tuple[int, ...]) -> None:
        binding.bind_input(name, "cpu", 0, values.dtype.type, shape, values.ctypes.data)

    def _check_inputs(self, manifest: ModelManifest) -> None:
        have = {value.name for value in self._session.get_inputs()}
        required = {"input_ids", "seqlens_k", "total_sequence_length", "logits_index"}
        required |= {f"past_key_values.{layer}.key" for layer in range(manifest.layers)}
        if missing := sorted(required - have):
            raise BackendFailed(f"the graph of model {manifest.name!r} has no input {missing[0]!r}")
