"""Maps generations to rows of the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SlotMap(Generic[T]):
    """Maps generations to rows, so that a decode step works on contiguous rows.

    Rows `0 .. decoding - 1` decode. Generations in prefill are at the far end. There is one row more than
    slots, so that one is always free for a move. `move(source, target)` copies a row; both rows count as
    taken meanwhile.
    """

    def __init__(self, slots: int, move: Callable[[int, int], None]) -> None:
        self.slots = slots
        self.decoding = 0
        self._move = move
        self._rows: list[T | None] = [None] * (slots + 1)
        self._at: dict[int, int] = {}

    def let_go(self) -> None:
        """Drop the reference to `move`, whose owner refers back here. Session and caches are then freed at
        once instead of by the garbage collector."""
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
        """The row of `item`. Raises KeyError if it has none."""
        return self._at[id(item)]

    def items(self) -> list[T]:
        """All generations, in order of rows."""
        return [item for item in self._rows if item is not None]

    def free_rows(self) -> list[int]:
        return [row for row, item in enumerate(self._rows) if item is None]

    def take(self, item: T) -> int:
        """Give `item` a row at the far end. Raises IndexError if all slots are taken."""
        if self.full:
            raise IndexError(f"all {self.slots} slots are taken")
        row = self._highest_free()
        self._put(item, row)
        return row

    def promote(self, item: T) -> int:
        """Move `item` from prefill to decoding. Returns its new row."""
        target = self.decoding
        source = self.row_of(item)
        if source != target:
            self._vacate(target)
            self._relocate(source, target)
        self.decoding += 1
        return target

    def release(self, item: T) -> None:
        """Free the row of `item`; the last decoding row takes its place."""
        row = self._at.pop(id(item))
        self._rows[row] = None
        if row < self.decoding:
            self.decoding -= 1
            if row != self.decoding:
                self._relocate(self.decoding, row)

    def _vacate(self, row: int) -> None:
        """Free `row`, which does not decode, by moving its generation."""
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
    """Do nothing."""
