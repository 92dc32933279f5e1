"""A llama, or some of its layers, in PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from actors.engine.kv import KvCache, KvShape
from actors.engine.sessions.llama_weights import LlamaWeights
from actors.engine.sessions.torch_linear import Linear
from actors.models.manifest import ModelManifest
from orchestration.errors import BackendFailed

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Tensor
    qkv: Linear
    attention_output: Linear
    feed_forward_norm: Tensor
    gate_up: Linear
    down: Linear


class TorchMemory:
    """Zeroed keys and values on a torch device; all memory is allocated at once."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
        try:
            self.array = torch.zeros(shape, device=device, dtype=dtype)
        except RuntimeError as error:  # torch's own OutOfMemoryError is one
            size = math.prod(shape) * dtype.itemsize
            raise BackendFailed(
                f"cannot allocate {size} bytes for keys and values on {device}: {error}",
                param="kv_cache_bytes",
            ) from error

    def drop(self, start: int, size: int) -> None:
        """Do nothing: a part of a tensor cannot be freed."""


class LlamaLayers:
    """Layers `first` to `last - 1` of the llama in `folder`; default all.

    Not thread-safe. Raises BackendFailed for a device that is missing or too small.
    """

    def __init__(
        self,
        folder: Path,
        manifest: ModelManifest,
        *,
        first: int = 0,
        last: int | None = None,
        device: str = "cpu",
        dtype: str = "auto",
    ) -> None:
        self.manifest = manifest
        self.begins = first == 0
        """Whether it has the model's first layer; `run` takes token ids then."""
        self.ends = last is None or last == manifest.layers
        """Whether it has the model's last layer; `run` returns logits then."""
        self.device = parse_device(device)
        self.dtype = parse_dtype(dtype, self.device)
        weights = LlamaWeights(folder)
        self._epsilon = weights.epsilon
        try:
            self._layers = [self._layer(weights, at) for at in range(first, last or manifest.layers)]
            self._embedding, self._output, self._norm = self._ends(weights)
            # Rotation stays in float32: half precision loses the position in a long context.
            cos, sin = (self._floats(weights.vector(f"{name}_cache")) for name in ("cos", "sin"))
        except torch.OutOfMemoryError as error:
            raise BackendFailed(f"model {manifest.name!r} does not fit on {device}: {error}") from error
        self._cos, self._sin = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)

    @property
    def lazy(self) -> bool:
        """Whether its cache is host memory that becomes resident as it is written."""
        return is_lazy(self.device, self.dtype)

    @property
    def shape(self) -> KvShape:
        """The size of a token's keys and values in these layers."""
        return kv_shape(self.manifest, len(self._layers), self.dtype)

    def cache(self, *, rows: int, length: int) -> KvCache:
        """A cache for these layers on their device; pass `tensor_of` it to `run`."""
        if self.lazy:
            return KvCache(self.shape, rows=rows, length=length)
        device, dtype = self.device, self.dtype
        return KvCache(
            self.shape, rows=rows, length=length, memory=lambda shape: TorchMemory(shape, device, dtype)
        )

    @torch.inference_mode()
    def run(self, x: Tensor, kv: Tensor, row: int, past: NDArray[np.int64]) -> Tensor:
        """One call over the rows `row` to `row + batch` of the cache `kv` (`tensor_of`).

        `x`: int64 token ids [batch, tokens] for the model's first layer, else hidden states
        [batch, tokens, hidden]; `past` [batch] says how many tokens each row holds already. With several
        tokens the batch is one row. Returns hidden states, or with the model's last layer the float32 logits
        [batch, vocabulary] after the last token.
        """
        if self.begins:
            x = F.embedding(x.to(self.device), self._embedding)
        x = x.to(self.device, self.dtype)
        batch, count = x.shape[:2]
        total = int(past.max()) + count
        positions = torch.as_tensor(past, device=self.device)[:, None] + torch.arange(
            count, device=self.device
        )
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]
        span = torch.arange(total, device=self.device)
        mask = span[None, None, None, :] <= positions[:, None, :, None]
        groups = self.manifest.heads // self.manifest.kv_heads
        mask = mask.repeat(1, 1, groups, 1) if count > 1 else mask
        at = torch.arange(batch, device=self.device)[:, None]
        rows = slice(row, row + batch)
        for number, layer in enumerate(self._layers):
            keys, values = kv[2 * number, rows], kv[2 * number + 1, rows]
            packed = layer.qkv(self._normed(x, layer.attention_norm))
            query, key, value = self._heads(packed, cos, sin)
            keys[at, :, positions] = key.transpose(1, 2)
            values[at, :, positions] = value.transpose(1, 2)
            attended = self._attend(query, keys[:, :, :total], values[:, :, :total], mask)
            x = x + layer.attention_output(attended)
            gate, up = layer.gate_up(self._normed(x, layer.feed_forward_norm)).chunk(2, -1)
            x = x + layer.down(F.silu(gate) * up)
        if self._output is None:
            return x
        return self._output(self._normed(x[:, -1], self._norm)).float()

    def _heads(self, packed: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys rotated, and values, each [batch, heads, tokens, head_dim]."""
        heads, kv_heads, half = self.manifest.heads, self.manifest.kv_heads, self.manifest.head_dim // 2
        parts = packed.view(*packed.shape[:2], heads + 2 * kv_heads, 2 * half).transpose(1, 2)
        turning, value = parts[:, : heads + kv_heads], parts[:, heads + kv_heads :]
        swapped = torch.cat([turning[..., half:], turning[..., :half]], -1)
        turned = (turning * cos + swapped * sin).to(self.dtype)
        return turned[:, :heads], turned[:, heads:], value

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Attention [batch, tokens, heads * head_dim]; heads that share keys form one product."""
        batch, heads, count, size = query.shape
        grouped = query.reshape(batch, keys.shape[1], -1, size)
        attended = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
        return attended.reshape(batch, heads, count, size).transpose(1, 2).reshape(batch, count, heads * size)

    def _normed(self, x: Tensor, gain: Tensor) -> Tensor:
        return F.rms_norm(x, (self.manifest.hidden,), gain, self._epsilon)

    def _layer(self, weights: LlamaWeights, number: int) -> _Layer:
        name = f"blk.{number}"
        return _Layer(
            self._placed(weights.norm(f"{name}.attn_norm")),
            Linear(self._placed(weights.qkv(number))),
            Linear(self._placed(weights.matrix(f"{name}.attn_output"))),
            self._placed(weights.norm(f"{name}.ffn_norm")),
            Linear(self._placed(weights.gate_up(number))),
            Linear(self._placed(weights.matrix(f"{name}.ffn_down"))),
        )

    def _ends(self, weights: LlamaWeights) -> tuple[Tensor, Linear | None, Tensor]:
        """The embedding table, the output layer and its norm; empty if these layers need none."""
        none = torch.empty(0)
        own = weights.embedding() if self.begins else None
        tied = self.begins and own is None
        output = self._placed(weights.matrix("logits")) if self.ends or tied else none
        embedding = output if tied else none if own is None else self._placed(own)
        norm = self._placed(weights.norm("output_norm")) if self.ends else none
        return embedding, Linear(output) if self.ends else None, norm

    def _placed(self, values: NDArray[Any]) -> Tensor:
        return self._floats(values).to(self.dtype)

    def _floats(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(values, np.float32, order="C")).to(self.device)


def tensor_of(kv: KvCache) -> Tensor:
    """The cache as a tensor on its device, the same memory."""
    return kv.array if isinstance(kv.array, Tensor) else torch.from_numpy(kv.array)


def parse_device(device: str) -> torch.device:
    """The device `cpu` or `cuda:N`. Raises BackendFailed if it does not exist."""
    count = torch.cuda.device_count()
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise BackendFailed(f"invalid device {device!r}: write cpu or cuda:N", param="device") from error
    if found.type == "cuda" and (found.index or 0) >= count:
        raise BackendFailed(
            f"device {device!r} does not exist; torch has {count} CUDA devices", param="device"
        )
    return found


def parse_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The type named `dtype`; `auto` is half precision on a GPU and full precision on a CPU."""
    if dtype == "auto":
        dtype = "float32" if device.type == "cpu" else "float16"
    found = getattr(torch, dtype, None)
    if found not in (torch.float32, torch.float16, torch.bfloat16):
        raise BackendFailed(
            f"invalid dtype {dtype!r}: write auto, float32, float16 or bfloat16", param="dtype"
        )
    assert isinstance(found, torch.dtype)
    return found


def is_lazy(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `LazyArray` can hold keys and values: float32 on the host."""
    return device.type == "cpu" and dtype == torch.float32


def kv_shape(manifest: ModelManifest, layers: int, dtype: torch.dtype) -> KvShape:
    return KvShape(
        layers=layers, kv_heads=manifest.kv_heads, head_dim=manifest.head_dim, item_bytes=dtype.itemsize
    )
