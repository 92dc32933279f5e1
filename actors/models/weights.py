"""Converts the tensors of a GGUF file to the layouts of the graph, exactly where possible.

A GGML block format is `w = scale * code + minimum` per block of 16 or 32 columns. `MatMulNBits` computes
`scale * (code - zero)` with zero 8 (4 bits) or 128 (8 bits), so any such format is kept bit for bit as
codes, float32 scales, and where it has a minimum, `offsets = minimum + scale * zero`, which the graph
adds as `sum of x over each block @ offsets^T`. Requantising instead ruins small models: see the test
of fidelity. Block layouts: ggml-quants.h of llama.cpp, mirrored by `gguf.quants`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from gguf import quants
from gguf.constants import GGMLQuantizationType as Ggml
from numpy.typing import NDArray

from actors.models.errors import UnsupportedModel
from actors.models.gguf_file import GgufTensor

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

SUPER = 256
"""Columns of a K-quant's super-block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWeights:
    """A matrix [rows, columns] of `bits`-bit codes.

    `codes` uint8 [rows, blocks, block * bits / 8], low nibble first; `scales` and `offsets` float32
    [rows, blocks]; the value of a code is `scale * (code - 2 ** (bits - 1)) + offset`.
    """

    bits: int
    block: int
    codes: Bytes
    scales: Floats
    offsets: Floats | None = None

    @property
    def rows(self) -> int:
        return int(self.codes.shape[0])

    @property
    def columns(self) -> int:
        return int(self.codes.shape[1]) * self.block

    def widened(self) -> BlockWeights:
        """The same values in 8-bit codes."""
        if self.bits == 8:
            return self
        codes = np.empty((*self.codes.shape[:2], self.block), np.uint8)
        codes[..., 0::2] = (self.codes & 15) + 120
        codes[..., 1::2] = (self.codes >> 4) + 120
        return BlockWeights(bits=8, block=self.block, codes=codes, scales=self.scales, offsets=self.offsets)

    def values(self) -> Floats:
        """The matrix in float32, [rows, columns]."""
        wide = self.widened()
        values = wide.scales[..., None] * (wide.codes.astype(np.float32) - 128)
        if self.offsets is not None:
            values += self.offsets[..., None]
        return values.reshape(self.rows, self.columns)


Matrix = BlockWeights | Floats
"""A float32 matrix [rows, columns], or one in blocks."""


def matrix(kind: Ggml, data: Bytes) -> Matrix:
    """The rows of raw `data` [rows, bytes per row] of GGML type `kind`.

    Raises `UnsupportedModel` for a type that cannot be read.
    """
    if decode := _EXACT.get(kind):
        return decode(data)
    try:
        values = quants.dequantize(np.ascontiguousarray(data), kind).astype(np.float32, copy=False)
    except NotImplementedError as error:
        raise UnsupportedModel(f"tensors of type {kind.name} cannot be read") from error
    if kind in FLOATS or values.shape[-1] % 32:
        return values
    return requantise(values)


def vector(tensor: GgufTensor) -> Floats:
    """A one-dimensional tensor in float32. Raises `UnsupportedModel` if it is not of a float type."""
    if tensor.type not in FLOATS or len(tensor.shape) != 1:
        raise UnsupportedModel(
            f"tensor {tensor.name!r} is {tensor.type.name} {list(tensor.shape)}, not a vector of floats"
        )
    return quants.dequantize(tensor.data, tensor.type).astype(np.float32, copy=False).reshape(-1)


def requantise(values: Floats) -> BlockWeights:
    """8-bit codes in blocks of 32, for formats without an exact layout (top-1 0.97 instead of 0.98)."""
    blocks = values.reshape(values.shape[0], -1, 32)
    scales = np.abs(blocks).max(axis=-1) / np.float32(127)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    codes = (np.rint(blocks * inverse[..., None]) + 128).astype(np.uint8)
    return BlockWeights(bits=8, block=32, codes=codes, scales=scales)


def _halves(raw: Bytes) -> Floats:
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def _blocks(data: Bytes, size: int) -> Bytes:
    return data.reshape(data.shape[0], -1, size)


def _interleaved(nibbles: Bytes) -> Bytes:
    """GGML's 16 bytes of (column i, column i + 16) as (column 2i, column 2i + 1), `MatMulNBits`' order."""
    low, high = nibbles & 15, nibbles >> 4
    packed = np.empty_like(nibbles)
    packed[..., :8] = low[..., 0::2] | (low[..., 1::2] << np.uint8(4))
    packed[..., 8:] = high[..., 0::2] | (high[..., 1::2] << np.uint8(4))
    return packed


def _q4_0(data: Bytes) -> BlockWeights:
    raw = _blocks(data, 18)
    return BlockWeights(
        bits=4, block=32, codes=_interleaved(raw[..., 2:]), scales=_halves(raw[..., :2])[..., 0]
    )


def _q4_1(data: Bytes) -> BlockWeights:
    raw = _blocks(data, 20)
    scale, minimum = np.moveaxis(_halves(raw[..., :4]), -1, 0)
    return BlockWeights(
        bits=4, block=32, codes=_interleaved(raw[..., 4:]), scales=scale, offsets=minimum + 8 * scale
    )


def _q5_codes(high: Bytes, nibbles: Bytes) -> Bytes:
    """5-bit codes [.., 32] of 4 bytes of high bits and 16 of nibbles, moved up by 112 so 16 is 128."""
    fifth: Bytes = np.unpackbits(high, axis=-1, bitorder="little")
    codes: Bytes = np.concatenate([nibbles & 15, nibbles >> 4], axis=-1) | (fifth << np.uint8(4))
    return codes + np.uint8(112)


def _q5_0(data: Bytes) -> BlockWeights:
    raw = _blocks(data, 22)
    codes = _q5_codes(raw[..., 2:6], raw[..., 6:])
    return BlockWeights(bits=8, block=32, codes=codes, scales=_halves(raw[..., :2])[..., 0])


def _q5_1(data: Bytes) -> BlockWeights:
    raw = _blocks(data, 24)
    scale, minimum = np.moveaxis(_halves(raw[..., :4]), -1, 0)
    codes = _q5_codes(raw[..., 4:8], raw[..., 8:])
    return BlockWeights(bits=8, block=32, codes=codes, scales=scale, offsets=minimum + 16 * scale)


def _q8_0(data: Bytes) -> BlockWeights:
    raw = _blocks(data, 34)
    return BlockWeights(
        bits=8, block=32, codes=raw[..., 2:] ^ np.uint8(128), scales=_halves(raw[..., :2])[..., 0]
    )


def _k_scales(raw: Bytes) -> tuple[Floats, Floats]:
    """Scales and minima float32 [rows, blocks of 32] of Q4_K's and Q5_K's first 16 bytes."""
    rows, supers = raw.shape[:2]
    whole = _halves(raw[..., :4])
    a, b, c = raw[..., 4:8], raw[..., 8:12], raw[..., 12:16]
    scales = np.concatenate([a & 63, (c & 15) | ((a >> 2) & 48)], axis=-1)
    minima = np.concatenate([b & 63, (c >> 4) | ((b >> 2) & 48)], axis=-1)
    return (
        (whole[..., :1] * scales).reshape(rows, supers * 8),
        (-whole[..., 1:] * minima).reshape(rows, supers * 8),
    )


def _k_nibbles(raw: Bytes) -> Bytes:
    """4-bit codes uint8 [rows, super-blocks, 8, 32] of 128 bytes: 32 bytes hold two blocks of 32."""
    pairs = raw.reshape(*raw.shape[:2], 4, 1, 32)
    both = np.concatenate([pairs & 15, pairs >> 4], axis=3)
    codes: Bytes = both.reshape(*raw.shape[:2], 8, 32)
    return codes


def _q4_k(data: Bytes) -> BlockWeights:
    raw = _blocks(data, 144)
    scales, minima = _k_scales(raw[..., :16])
    codes = _k_nibbles(raw[..., 16:]).reshape(*scales.shape, 32)
    packed = codes[..., 0::2] | (codes[..., 1::2] << np.uint8(4))
    return BlockWeights(bits=4, block=32, codes=packed, scales=scales, offsets=minima + 8 * scales)


def _q5_k(data: Bytes) -> BlockWeights:
    raw = _blocks(data, 176)
    scales, minima = _k_scales(raw[..., :16])
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    fifth: Bytes = (raw[..., 16:48][..., None, :] >> shifts) & np.uint8(1)
    codes: Bytes = (_k_nibbles(raw[..., 48:]) | (fifth << np.uint8(4))) + np.uint8(112)
    return BlockWeights(
        bits=8, block=32, codes=codes.reshape(*scales.shape, 32), scales=scales, offsets=minima + 16 * scales
    )


def _q6_k(data: Bytes) -> BlockWeights:
    raw = _blocks(data, 210)
    rows, supers = raw.shape[:2]
    nibbles = raw[..., :128].reshape(rows, supers, 2, 1, 64)
    low = np.concatenate([nibbles & 15, nibbles >> 4], axis=3).reshape(rows, supers, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = (raw[..., 128:192].reshape(rows, supers, 2, 1, 32) >> shifts) & 3
    codes: Bytes = (low | (high << np.uint8(4))) + np.uint8(96)
    steps = raw[..., 192:208].view(np.int8).astype(np.float32)
    scales = (_halves(raw[..., 208:]) * steps).reshape(rows, supers * 16)
    return BlockWeights(bits=8, block=16, codes=codes.reshape(*scales.shape, 16), scales=scales)


FLOATS = frozenset({Ggml.F32, Ggml.F16, Ggml.BF16})
"""Types that are converted to float32 exactly."""

_EXACT: dict[Ggml, Callable[[Bytes], BlockWeights]] = {
    Ggml.Q4_0: _q4_0,
    Ggml.Q4_1: _q4_1,
    Ggml.Q5_0: _q5_0,
    Ggml.Q5_1: _q5_1,
    Ggml.Q8_0: _q8_0,
    Ggml.Q4_K: _q4_k,
    Ggml.Q5_K: _q5_k,
    Ggml.Q6_K: _q6_k,
}


def layout(kind: Ggml) -> str:
    """The layout for a type, as named in the manifest: `q4_1`, `f32`, or `q8 (from iq3_s)`."""
    if kind in FLOATS:
        return "f32"
    return kind.name.lower() if kind in _EXACT else f"q8 (from {kind.name.lower()})"
