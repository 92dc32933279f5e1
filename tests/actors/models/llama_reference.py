"""The llama architecture in plain numpy float64, straight from the tensors of a GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFReader, quants
from numpy.typing import NDArray

Array = NDArray[np.float64]


class LlamaReference:
    """Reads `path` with the gguf package alone, so that it shares no code with the importer."""

    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self.tensors: dict[str, Array] = {
            tensor.name: quants.dequantize(tensor.data, tensor.tensor_type)
            .astype(np.float64)
            .reshape([int(size) for size in tensor.shape[::-1]])
            for tensor in reader.tensors
        }

        def value(key: str, default: float) -> float:
            field = reader.get_field(f"llama.{key}")
            return float(field.contents()) if field else default

        self.heads = int(value("attention.head_count", 0))
        self.kv_heads = int(value("attention.head_count_kv", self.heads))
        self.layers = int(value("block_count", 0))
        self.epsilon = value("attention.layer_norm_rms_epsilon", 0)
        self.base = value("rope.freq_base", 10000)
        self.scale = value("rope.scaling.factor", 1)

    def logits(self, ids: list[int]) -> Array:
        """Logits [tokens, vocabulary] of one sequence from its beginning."""
        weights = self.tensors
        x = weights["token_embd.weight"][ids]
        for layer in range(self.layers):
            part = {
                name.removeprefix(f"blk.{layer}.").removesuffix(".weight"): tensor
                for name, tensor in weights.items()
                if name.startswith(f"blk.{layer}.")
            }
            h = self._norm(x, part["attn_norm"])
            x = x + self._attention(h, part) @ part["attn_output"].T
            h = self._norm(x, part["ffn_norm"])
            gate = h @ part["ffn_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ part["ffn_up"].T)) @ part["ffn_down"].T
        x = self._norm(x, weights["output_norm.weight"])
        output: Array = x @ weights.get("output.weight", weights["token_embd.weight"]).T
        return output

    def _norm(self, x: Array, gain: Array) -> Array:
        normed: Array = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.epsilon) * gain
        return normed

    def _attention(self, h: Array, part: dict[str, Array]) -> Array:
        tokens = len(h)
        queries, keys, values = (
            (h @ part[f"attn_{name}"].T).reshape(tokens, heads, -1).swapaxes(0, 1)
            for name, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads))
        )
        queries, keys = self._rotated(queries), self._rotated(keys)
        share = self.heads // self.kv_heads
        keys, values = keys.repeat(share, axis=0), values.repeat(share, axis=0)
        scores = queries @ keys.swapaxes(1, 2) / np.sqrt(queries.shape[-1])
        scores[:, ~np.tri(tokens, dtype=bool)] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed: Array = (scores / scores.sum(-1, keepdims=True)) @ values
        return mixed.swapaxes(0, 1).reshape(tokens, -1)

    def _rotated(self, x: Array) -> Array:
        """Rotary embedding over neighbouring pairs, GGUF's order for llama. x: [heads, tokens, head_dim]."""
        half = x.shape[-1] // 2
        inverse = self.base ** -(np.arange(half) / half) / self.scale
        inverse = inverse / self.tensors.get("rope_freqs.weight", np.ones(half))
        angles = np.outer(np.arange(x.shape[1]), inverse)
        even, odd = x[..., 0::2], x[..., 1::2]
        rotated = np.empty_like(x)
        rotated[..., 0::2] = even * np.cos(angles) - odd * np.sin(angles)
        rotated[..., 1::2] = even * np.sin(angles) + odd * np.cos(angles)
        return rotated


def relative_error(actual: NDArray[np.float32], expected: Array) -> float:
    """The root mean square of the differences, in standard deviations of `expected`."""
    return float(np.sqrt(((actual - expected) ** 2).mean()) / expected.std())
