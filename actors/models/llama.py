"""The llama architecture: parameters from a GGUF file, and the graph (see `actors.models.manifest`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf.constants import GGMLQuantizationType
from onnx import TensorProto

from actors.models.errors import CorruptModel, UnsupportedModel
from actors.models.gguf_file import GgufTensor
from actors.models.gguf_parts import GgufModel
from actors.models.graph import MICROSOFT, GraphWriter
from actors.models.weights import BlockWeights, Bytes, Floats, Matrix, layout, matrix, vector

_KNOWN = frozenset(
    {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "rope.freq_base",
        "attention.layer_norm_rms_epsilon",
        "vocab_size",
        "rope.dimension_count",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.finetuned",
        "expert_count",
        "expert_used_count",
    }
)
"""Supported parameters. Others could change answers silently, so they are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """Sizes in numbers of elements; `rope_scale` divides positions (linear scaling)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    context: int
    vocabulary: int
    epsilon: float
    rope_base: float
    rope_scale: float = 1.0

    @classmethod
    def of(cls, file: GgufModel) -> LlamaConfig:
        """Read from the metadata. Raises `UnsupportedModel` and `CorruptModel`, naming the parameter."""
        values = {
            key.removeprefix("llama."): value
            for key, value in file.metadata.items()
            if key.startswith("llama.")
        }
        unknown = sorted(values.keys() - _KNOWN)
        if unknown or values.get("expert_count", 0) != 0:
            raise UnsupportedModel(f"llama parameters not supported: {', '.join(unknown) or 'expert_count'}")

        def number(key: str, default: float | None = None) -> float:
            value = values.get(key, default)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
                raise CorruptModel(f"{file.path.name} has no usable parameter llama.{key}: {value!r}")
            return value

        hidden, heads = int(number("embedding_length")), int(number("attention.head_count"))
        head_dim = int(number("attention.key_length", hidden // heads))
        config = cls(
            layers=int(number("block_count")),
            hidden=hidden,
            heads=heads,
            kv_heads=int(number("attention.head_count_kv", heads)),
            head_dim=head_dim,
            feed_forward=int(number("feed_forward_length")),
            context=int(number("context_length")),
            vocabulary=len(file.metadata.get("tokenizer.ggml.tokens", ())),
            epsilon=float(number("attention.layer_norm_rms_epsilon")),
            rope_base=float(number("rope.freq_base", 10000.0)),
            rope_scale=_rope_scale(values),
        )
        if number("attention.value_length", head_dim) != head_dim:
            raise UnsupportedModel("llama.attention.value_length differs from the length of keys")
        if number("rope.dimension_count", head_dim) != head_dim or head_dim % 2:
            raise UnsupportedModel("rotary embedding of a part of each head (llama.rope.dimension_count)")
        if heads % config.kv_heads:
            raise CorruptModel(f"{heads} heads cannot share {config.kv_heads} KV heads")
        return config


def _rope_scale(values: dict[str, Any]) -> float:
    kind = values.get("rope.scaling.type", "none")
    if kind == "none":
        return 1.0
    factor = values.get("rope.scaling.factor", 1.0)
    if kind != "linear" or not isinstance(factor, int | float) or factor <= 0:
        raise UnsupportedModel(f"rope scaling {kind!r} with factor {factor!r}; none and linear are supported")
    return float(factor)


class LlamaGraph:
    """Writes the graph of one file. `write` returns the layouts of the weights and the parameter count."""

    def __init__(
        self, file: GgufModel, config: LlamaConfig, writer: GraphWriter, progress: Callable[[float], None]
    ) -> None:
        self.config = config
        self._tensors = dict(file.tensors)
        self._writer = writer
        self._progress = progress
        self._counts: dict[str, int] = {}

    @property
    def parameters(self) -> int:
        return sum(self._counts.values())

    @property
    def weights(self) -> str:
        """The layouts of the matrices, the one with the most parameters first: `q4_1, q8_0`."""
        return ", ".join(sorted(self._counts, key=lambda name: -self._counts[name]))

    def write(self) -> None:
        """Add all nodes. Raises `UnsupportedModel` for a tensor that llama does not have."""
        writer, config = self._writer, self.config
        writer.input("input_ids", TensorProto.INT64, ["batch", "sequence"])
        writer.input("seqlens_k", TensorProto.INT32, ["batch"])
        writer.input("total_sequence_length", TensorProto.INT32, [])
        writer.input("logits_index", TensorProto.INT64, ["picks"])
        writer.output("logits", TensorProto.FLOAT, ["picks", config.vocabulary])
        tied = "output.weight" not in self._tensors
        table = self._embedding(tied)
        self._rotary_caches()
        x = ""
        residual = "embedded"
        for layer in range(config.layers):
            x, residual = self._layer(layer, x, residual)
            self._progress((layer + 1) / (config.layers + 1))
        x, _ = self._normed("output_norm", x, residual)
        x = self._reshaped(x, "output_rows", [-1, config.hidden])
        if not tied:
            table = self._matrix("output.weight", config.vocabulary, config.hidden)
        writer.linear(x, "logits", table, rank=2)
        if self._tensors:
            names = sorted(self._tensors)
            raise UnsupportedModel(
                f"{len(names)} tensors that a plain llama does not have, {names[0]!r} among them"
            )
        self._progress(1.0)

    def _take(self, name: str) -> GgufTensor:
        tensor = self._tensors.pop(name, None)
        if tensor is None:
            raise CorruptModel(f"tensor {name!r} is missing")
        return tensor

    def _checked(self, name: str, rows: int, columns: int) -> GgufTensor:
        tensor = self._take(name)
        if tensor.shape != (rows, columns):
            raise CorruptModel(f"tensor {name!r} has shape {tensor.shape}, expected {(rows, columns)}")
        kind = layout(tensor.type)
        self._counts[kind] = self._counts.get(kind, 0) + rows * columns
        return tensor

    def _matrix(self, name: str, rows: int, columns: int) -> Matrix:
        tensor = self._checked(name, rows, columns)
        return matrix(tensor.type, tensor.data)

    def _vector(self, name: str, length: int) -> Floats:
        values = vector(self._take(name))
        if len(values) != length:
            raise CorruptModel(f"tensor {name!r} has {len(values)} elements, expected {length}")
        return values

    def _embedding(self, tied: bool) -> Matrix:
        """Look up `input_ids`; returns the table, which a tied output layer shares."""
        writer, config = self._writer, self.config
        table = self._matrix("token_embd.weight", config.vocabulary, config.hidden)
        if not isinstance(table, BlockWeights):
            # The output layer needs it transposed, so a tied float table is stored twice.
            writer.node("Gather", [writer.tensor("embedding", table), "input_ids"], "embedded")
            return table
        table = table.widened()
        owner = "logits" if tied else "embedding"
        codes = writer.tensor(f"{owner}.codes", table.codes)
        scales = writer.tensor(f"{owner}.scales", table.scales)
        gathered = writer.node(
            "GatherBlockQuantized",
            [
                codes,
                "input_ids",
                writer.reshaped("embedding.scales_3d", scales, (*table.scales.shape, 1)),
            ],
            "embedded.blocks",
            domain=MICROSOFT,
            bits=8,
            block_size=table.block,
            gather_axis=0,
            quantize_axis=2,
        )
        if table.offsets is not None:
            offsets = writer.tensor("embedding.offsets", table.offsets[..., None])
            shift = writer.node("Gather", [offsets, "input_ids"], "embedded.shift")
            gathered = writer.node("Add", [gathered, shift], "embedded.shifted")
        self._reshaped(gathered, "embedded", [0, 0, config.hidden])
        return table

    def _reshaped(self, x: str, name: str, shape: list[int]) -> str:
        constant = self._writer.tensor(f"{name}.shape", np.array(shape, np.int64))
        return self._writer.node("Reshape", [x, constant], name)

    def _rotary_caches(self) -> None:
        config = self.config
        half = config.head_dim // 2
        inverse = config.rope_base ** -(np.arange(half, dtype=np.float64) / half) / config.rope_scale
        if "rope_freqs.weight" in self._tensors:
            inverse /= self._vector("rope_freqs.weight", half)
        angles = np.outer(np.arange(config.context, dtype=np.float64), inverse)
        self._writer.tensor("cos_cache", np.cos(angles).astype(np.float32))
        self._writer.tensor("sin_cache", np.sin(angles).astype(np.float32))

    def _normed(self, name: str, x: str, residual: str) -> tuple[str, str]:
        """RMS norm of `x + residual` (of `residual` alone while x is ""); also returns that sum."""
        writer, config = self._writer, self.config
        gain = writer.tensor(f"{name}.weight", self._vector(f"{name}.weight", config.hidden))
        epsilon = config.epsilon
        if not x:
            inputs = [residual, gain]
            writer.node("SimplifiedLayerNormalization", inputs, name, axis=-1, epsilon=epsilon, stash_type=1)
            return name, residual
        outputs = [name, "", "", f"{name}.residual"]
        writer.nodes(
            "SkipSimplifiedLayerNormalization",
            [x, residual, gain],
            outputs,
            domain=MICROSOFT,
            epsilon=epsilon,
        )
        return name, outputs[-1]

    def _layer(self, layer: int, x: str, residual: str) -> tuple[str, str]:
        config = self.config
        name, width, sizes = (
            f"blk.{layer}",
            config.heads * config.head_dim,
            (config.feed_forward, config.hidden),
        )
        x, residual = self._normed(f"{name}.attn_norm", x, residual)
        x = self._attention(layer, self._packed_qkv(name, x))
        if layer == config.layers - 1:
            x = self._picked(x, "last.attention", width)
            residual = self._picked(residual, "last.residual", config.hidden)
        x = self._linear(x, f"{name}.attn_output", config.hidden, width)
        x, residual = self._normed(f"{name}.ffn_norm", x, residual)
        gate, up = self._gate_and_up(name, x)
        active = self._writer.node("QuickGelu", [gate], f"{name}.silu", domain=MICROSOFT, alpha=1.0)
        x = self._writer.node("Mul", [active, up], f"{name}.ffn_act")
        return self._linear(x, f"{name}.ffn_down", *sizes[::-1]), residual

    def _gate_and_up(self, name: str, x: str) -> list[str]:
        """One product if the two share a type: 3 % less time per step."""
        config, writer = self.config, self._writer
        names = [f"{name}.ffn_gate", f"{name}.ffn_up"]
        gate, up = (self._checked(f"{part}.weight", config.feed_forward, config.hidden) for part in names)
        if gate.type != up.type:
            return [
                writer.linear(x, part, matrix(tensor.type, tensor.data))
                for part, tensor in zip(names, (gate, up), strict=True)
            ]
        both = matrix(gate.type, np.concatenate([gate.data, up.data]))
        packed = writer.linear(x, f"{name}.ffn_gate_up", both)
        return writer.nodes("Split", [packed], names, axis=-1, num_outputs=2)

    def _linear(self, x: str, name: str, rows: int, columns: int) -> str:
        return self._writer.linear(x, name, self._matrix(f"{name}.weight", rows, columns))

    def _picked(self, x: str, name: str, width: int) -> str:
        """Only the positions in `logits_index`, [1, picks, width]; the rest of the last layer needs no
        others."""
        flat = self._reshaped(x, f"{name}.flat", [1, -1, width])
        return self._writer.node("Gather", [flat, "logits_index"], f"{name}.picked", axis=1)

    def _packed_qkv(self, name: str, x: str) -> str:
        """Queries, keys and values side by side; one product if the three share a type."""
        config, writer = self.config, self._writer
        parts = [("attn_q", config.heads), ("attn_k", config.kv_heads), ("attn_v", config.kv_heads)]
        kinds: list[GGMLQuantizationType] = []
        raw: list[Bytes] = []
        for part, heads in parts:
            tensor = self._checked(f"{name}.{part}.weight", heads * config.head_dim, config.hidden)
            kinds.append(tensor.type)
            raw.append(tensor.data if part == "attn_v" else tensor.data[_rope_rows(heads, config.head_dim)])
        if len(set(kinds)) == 1:
            return writer.linear(x, f"{name}.attn_qkv", matrix(kinds[0], np.concatenate(raw)))
        products = [
            writer.linear(x, f"{name}.{part}", matrix(kind, data))
            for (part, _), kind, data in zip(parts, kinds, raw, strict=True)
        ]
        return writer.node("Concat", products, f"{name}.attn_qkv", axis=-1)

    def _attention(self, layer: int, packed: str) -> str:
        writer, config = self._writer, self.config
        names = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        for past in names:
            writer.input(past, TensorProto.FLOAT, ["batch", config.kv_heads, "max_length", config.head_dim])
        output, *_ = writer.nodes(
            "GroupQueryAttention",
            [packed, "", "", *names, "seqlens_k", "total_sequence_length", "cos_cache", "sin_cache"],
            [f"blk.{layer}.attention", *present],
            domain=MICROSOFT,
            num_heads=config.heads,
            kv_num_heads=config.kv_heads,
            scale=config.head_dim**-0.5,
            do_rotary=1,
            rotary_interleaved=0,
        )
        for name in present:
            writer.output(name, TensorProto.FLOAT, ["batch", config.kv_heads, "max_length", config.head_dim])
        return output


def _rope_rows(heads: int, head_dim: int) -> Any:
    """The row order that converts GGUF's adjacent rotary pairs to the graph's halves."""
    return np.arange(heads * head_dim).reshape(heads, head_dim // 2, 2).swapaxes(1, 2).reshape(-1)
