"""Keys and values of the running generations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from actors.engine.memory import LazyArray


@dataclass(frozen=True, slots=True, kw_only=True)
class KvShape:
    """The size of one token's keys and values."""

    layers: int
    kv_heads: int
    head_dim: int
    item_bytes: int = 4

    @property
    def token_bytes(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.item_bytes


class Memory(Protocol):
    """A zeroed array of numpy or of torch."""

    array: Any

    def drop(self, start: int, size: int) -> None:
        """Give back the `size` bytes from byte `start` where that can be done; they read as zeros."""


class KvCache:
    """Rows of keys and values, bound in place as the model's past and present.

    `memory(shape)` makes the arrays, here and for what is kept of them. `array` is float32, or what `memory`
    makes, [2 * layers, rows, kv_heads, length, head_dim]: for each layer its keys, then its
    values. `array[i, :n]` is one block of memory, so the first `n` rows are a batch without copying.
    Beside the rows there is room for blocks of tokens that are kept, once `reserve` was called.
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
        """Most tokens that each row may have resident."""
        self.block = 0
        """Tokens of a kept block."""
        self._kept: Memory | None = None

    def reserve(self, blocks: int, block: int) -> None:
        """Make room to keep `blocks` blocks of `block` tokens."""
        shape = self.shape
        self.block = block
        self._kept = self._make((blocks, 2 * shape.layers, shape.kv_heads, block, shape.head_dim))

    def keep(self, place: int, row: int, start: int) -> None:
        """Copy the block at token `start` of `row` to the place `place` for kept ones."""
        assert self._kept is not None
        self._kept.array[place] = self.array[:, row, :, start : start + self.block]

    def restore(self, place: int, row: int, start: int) -> None:
        """Copy the kept block at `place` to token `start` of `row`."""
        assert self._kept is not None
        self.array[:, row, :, start : start + self.block] = self._kept.array[place]

    def drop(self, place: int) -> None:
        """Give the memory of the kept block at `place` back to the system."""
        assert self._kept is not None
        size = self.block * self.shape.token_bytes
        self._kept.drop(place * size, size)

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` tokens of row `source` to row `target`."""
        self.array[:, target, :, :tokens] = self.array[:, source, :, :tokens]

    def trim(self, row: int) -> None:
        """Give the memory of `row` back to the system."""
        if self.touched[row]:
            plane = self.array[0, 0].nbytes
            for layer in range(2 * self.shape.layers):
                self._memory.drop((layer * self.rows + row) * plane, plane)
            self.touched[row] = 0

    def claim(self, row: int, tokens: int) -> None:
        """Note that `row` may come to hold `tokens` tokens."""
        self.touched[row] = max(self.touched[row], tokens)

    def fit(self, limit: int, free: Sequence[int]) -> None:
        """Trim `free` rows, the largest first, until at most `limit` tokens can be resident."""
        excess = sum(self.touched) - limit
        for row in sorted(free, key=self.touched.__getitem__, reverse=True):
            if excess <= 0:
                return
            excess -= self.touched[row]
            self.trim(row)
