"""Keys and values of the running generations, in memory that becomes resident page by page."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class LazyArray:
    """A zeroed float32 array in an anonymous mapping.

    Only written pages take memory, so a cache can reserve the maximum context in every row. Transparent huge
    pages are disabled: one would make 2 MB resident at the first write of 256 bytes.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.bytes = max(4 * math.prod(shape), mmap.PAGESIZE)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._map = mmap.mmap(-1, self.bytes, flags=flags)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        self.array: NDArray[np.float32] = np.frombuffer(
            self._map, dtype=np.float32, count=math.prod(shape)
        ).reshape(shape)

    def drop(self, start: int, size: int) -> None:
        """Free the whole pages within the `size` bytes from byte `start`; they read as zeros."""
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0:
            self._map.madvise(mmap.MADV_DONTNEED, first, length)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvShape:
    """The size of one token's keys and values."""

    layers: int
    kv_heads: int
    """Heads of keys and values in each layer."""
    head_dim: int
    """Numbers of one head."""
    item_bytes: int = 4
    """Bytes of one number."""

    @property
    def token_bytes(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.item_bytes


class Memory(Protocol):
    """A zeroed numpy or torch array."""

    array: Any

    def drop(self, start: int, size: int) -> None:
        """Free the `size` bytes from byte `start` if possible; they read as zeros."""


class KvCache:
    """Rows of keys and values, bound in place as the model's past and present.

    `array`: [2 * layers, rows, kv_heads, length, head_dim], for each layer its keys, then its values;
    float32, or the type that `memory(shape)` makes. `array[i, :n]` is contiguous, so the first `n` rows are a
    batch without copying. After `reserve` there is also room for cached blocks of tokens.
    """

    def __init__(
        self,
        shape: KvShape,
        *,
        rows: int,
        length: int,
        memory: Callable[[tuple[int, ...]], Memory] = LazyArray,
    ) -> None:
        self.shape = shape
        self.rows = rows
        self.length = length
        self._make = memory
        self._memory = memory((2 * shape.layers, rows, shape.kv_heads, length, shape.head_dim))
        self.array: Any = self._memory.array
        self.touched = [0] * rows
        """Maximum resident tokens of each row."""
        self.block = 0
        """Tokens of a cached block."""
        self._blocks: Memory | None = None

    def reserve(self, blocks: int, block: int) -> None:
        """Allocate room for `blocks` cached blocks of `block` tokens."""
        shape = self.shape
        self.block = block
        self._blocks = self._make((blocks, 2 * shape.layers, shape.kv_heads, block, shape.head_dim))

    def keep(self, place: int, row: int, start: int) -> None:
        """Copy the block at token `start` of `row` to place `place` of the cache."""
        assert self._blocks is not None
        self._blocks.array[place] = self.array[:, row, :, start : start + self.block]

    def restore(self, place: int, row: int, start: int) -> None:
        """Copy the cached block at `place` to token `start` of `row`."""
        assert self._blocks is not None
        self.array[:, row, :, start : start + self.block] = self._blocks.array[place]

    def drop(self, place: int) -> None:
        """Free the memory of the cached block at `place`."""
        assert self._blocks is not None
        size = self.block * self.shape.token_bytes
        self._blocks.drop(place * size, size)

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` tokens of row `source` to row `target`."""
        self.array[:, target, :, :tokens] = self.array[:, source, :, :tokens]

    def trim(self, row: int) -> None:
        """Free the memory of `row`."""
        if self.touched[row]:
            plane = self.array[0, 0].nbytes
            for layer in range(2 * self.shape.layers):
                self._memory.drop((layer * self.rows + row) * plane, plane)
            self.touched[row] = 0

    def claim(self, row: int, tokens: int) -> None:
        """Record that `row` may hold up to `tokens` tokens."""
        self.touched[row] = max(self.touched[row], tokens)

    def fit(self, limit: int, free: Sequence[int]) -> None:
        """Trim `free` rows, the largest first, until at most `limit` tokens can be resident."""
        excess = sum(self.touched) - limit
        for row in sorted(free, key=self.touched.__getitem__, reverse=True):
            if excess <= 0:
                return
            excess -= self.touched[row]
            self.trim(row)
