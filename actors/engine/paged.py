"""Keys and values in blocks of tokens, for attention that takes a table of blocks for each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from actors.engine.kv import KvShape, LazyArray, Memory


class PagedKv:
    """Rows as lists of blocks. A row moves, and shares the blocks of a cached prompt, without a copy.

    `planes` holds the keys, then the values of each layer, [blocks, kv_heads, block, head_dim]. A block goes
    back when no row and no cached prefix holds it.
    """

    def __init__(
        self,
        shape: KvShape,
        *,
        rows: int,
        blocks: int,
        block: int,
        memory: Callable[[tuple[int, ...]], Memory] = LazyArray,
    ) -> None:
        self.shape = shape
        self.block = block
        """Tokens of a block."""
        plane = (blocks, shape.kv_heads, block, shape.head_dim)
        self._memory = [memory(plane) for _ in range(2 * shape.layers)]
        self._plane_bytes = shape.kv_heads * block * shape.head_dim * shape.item_bytes
        self._tables: list[list[int]] = [[] for _ in range(rows)]
        self._holders = [0] * blocks
        self._spare: list[int] = []
        """Unused blocks whose memory is resident."""
        self._empty = list(range(blocks - 1, -1, -1))
        self._kept: dict[int, int] = {}
        """Place in the prefix cache → block."""

    @property
    def planes(self) -> list[NDArray[np.float32]]:
        return [memory.array for memory in self._memory]

    @property
    def resident(self) -> int:
        """Blocks whose memory is resident."""
        return len(self._holders) - len(self._empty)

    def extend(self, row: int, past: int, tokens: int) -> None:
        """Give `row`, of which `past` tokens count, room for `tokens` more."""
        table = self._tables[row]
        self._truncate(row, -(-past // self.block))
        while len(table) * self.block < past + tokens:
            table.append(self._take())

    def tables(self, first: int, lengths: Sequence[int]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The blocks of the rows from `first` on, which hold `lengths` tokens, and where each row begins."""
        begins, blocks = [0], []
        for row, length in enumerate(lengths, first):
            blocks += self._tables[row][: -(-length // self.block)]
            begins.append(len(blocks))
        return np.array(blocks, np.int32), np.array(begins, np.int32)

    def move(self, source: int, target: int, tokens: int) -> None:
        """Give the blocks of row `source` to row `target`."""
        self._truncate(target, 0)
        self._tables[target], self._tables[source] = self._tables[source], []

    def claim(self, row: int, tokens: int) -> None:
        """Do nothing: blocks are taken as tokens are written."""

    def fit(self, limit: int, free: Sequence[int]) -> None:
        """Release the blocks of `free` rows, and free memory beyond `limit` tokens of all rows together."""
        for row in free:
            self._truncate(row, 0)
        allowed = max(0, limit // self.block - sum(map(len, self._tables)))
        while len(self._spare) > allowed:
            self._free(self._spare.pop())

    def reserve(self, blocks: int, block: int) -> None:
        """Do nothing: cached prefixes hold blocks of the rows."""
        assert block == self.block

    def keep(self, place: int, row: int, start: int) -> None:
        """Hold the block at token `start` of `row` at place `place` of the prefix cache."""
        if place in self._kept:
            self._release(self._kept.pop(place))
        block = self._tables[row][start // self.block]
        self._holders[block] += 1
        self._kept[place] = block

    def restore(self, place: int, row: int, start: int) -> None:
        """Let the block at `place` be the one at token `start` of `row`."""
        self._truncate(row, start // self.block)
        block = self._kept[place]
        self._holders[block] += 1
        self._tables[row].append(block)

    def drop(self, place: int) -> None:
        """Release the block at `place`, and free its memory if nothing else holds it."""
        self._release(self._kept.pop(place))
        if self._spare:
            self._free(self._spare.pop())

    def _truncate(self, row: int, blocks: int) -> None:
        table = self._tables[row]
        while len(table) > blocks:
            self._release(table.pop())

    def _take(self) -> int:
        block = self._spare.pop() if self._spare else self._empty.pop()
        self._holders[block] = 1
        return block

    def _release(self, block: int) -> None:
        self._holders[block] -= 1
        if not self._holders[block]:
            self._spare.append(block)

    def _free(self, block: int) -> None:
        for memory in self._memory:
            memory.drop(block * self._plane_bytes, self._plane_bytes)
        self._empty.append(block)
