"""Which row of the cache holds which generation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SlotMap(Generic[T]):
    """Places generations in the rows of a cache, so that a decode step sees one block without holes.

    Rows `0 .. decoding - 1` decode. Generations whose prompt is still being read sit at the far end.
    There is one row more than slots: always one is free to move through. `move(source, target)` copies what
    a row holds; meanwhile both rows count as taken.
    """

    def __init__(self, slots: int, move: Callable[[int, int], None]) -> None:
        self.slots = slots
        self.decoding = 0
        self._move = move
        self._rows: list[T | None] = [None] * (slots + 1)
        self._at: dict[int, int] = {}

    def let_go(self) -> None:
        """Forget whom `move` belongs to. It refers back here: without that its session and caches are freed
        at once, not when the garbage collector passes by."""
        self._move = _stay

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, row: int) -> T:
        item = self._rows[row]
        if item is None:
            raise KeyError(f"row {row} is free")
        return item

    @property
    def full(self) -> bool:
        return len(self._at) >= self.slots

    def row_of(self, item: T) -> int:
        """The row that holds `item` now. Raises KeyError if none does."""
        return self._at[id(item)]

    def items(self) -> list[T]:
        """All generations that have a row, in order of rows."""
        return [item for item in self._rows if item is not None]

    def free_rows(self) -> list[int]:
        return [row for row, item in enumerate(self._rows) if item is None]

    def take(self, item: T) -> int:
        """Give `item` a row at the far end; raises IndexError when all slots are taken."""
        if self.full:
            raise IndexError(f"all {self.slots} slots are taken")
        row = self._highest_free()
        self._put(item, row)
        return row

    def promote(self, item: T) -> int:
        """Let `item`, whose prompt has been read, decode; returns its new row."""
        target = self.decoding
        source = self.row_of(item)
        if source != target:
            self._vacate(target)
            self._relocate(source, target)
        self.decoding += 1
        return target

    def release(self, item: T) -> None:
        """Free the row of `item`; the last decoding row moves into the hole it leaves."""
        row = self._at.pop(id(item))
        self._rows[row] = None
        if row < self.decoding:
            self.decoding -= 1
            if row != self.decoding:
                self._relocate(self.decoding, row)

    def _vacate(self, row: int) -> None:
        """Make `row`, which does not decode, free."""
        if self._rows[row] is not None:
            self._relocate(row, self._highest_free())

    def clear(self) -> None:
        self._rows = [None] * (self.slots + 1)
        self._at.clear()
        self.decoding = 0

    def _highest_free(self) -> int:
        for row in range(self.slots, -1, -1):
            if self._rows[row] is None:
                return row
        raise IndexError(f"all {self.slots + 1} rows are taken")

    def _relocate(self, source: int, target: int) -> None:
        self._put(self[source], target)
        self._move(source, target)
        self._rows[source] = None

    def _put(self, item: T, row: int) -> None:
        self._rows[row] = item
        self._at[id(item)] = row


def _stay(source: int, target: int) -> None:
    """Nothing is left that could be moved."""
