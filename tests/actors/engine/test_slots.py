from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.slots import SlotMap


class Rows:
    """A cache whose rows hold one word each, written and copied as keys and values are."""

    def __init__(self, slots: int) -> None:
        self.words: list[str | None] = [None] * (slots + 1)
        self.map: SlotMap[Item] = SlotMap(slots, self._move)

    def _move(self, source: int, target: int) -> None:
        self.words[target] = self.words[source]

    def take(self, item: Item) -> None:
        self.words[self.map.take(item)] = item.word

    def check(self, items: list[Item]) -> None:
        assert len(self.map) == len(items)
        for item in items:
            assert self.words[self.map.row_of(item)] == item.word
        decoding = {self.map.row_of(item) for item in items if item.decoding}
        assert decoding == set(range(self.map.decoding))


class Item:
    def __init__(self, word: str) -> None:
        self.word = word
        self.decoding = False


@given(
    slots=st.integers(1, 6), actions=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=60)
)
def test_rows_stay_compact_and_hold_their_own_words_whoever_comes_and_goes(
    slots: int, actions: list[tuple[int, int]]
) -> None:
    rows = Rows(slots)
    items: list[Item] = []
    for number, (action, which) in enumerate(actions):
        if action == 0 and not rows.map.full:
            items.append(Item(f"item {number}"))
            rows.take(items[-1])
        elif action == 1 and (reading := [item for item in items if not item.decoding]):
            item = reading[which % len(reading)]
            assert rows.map.promote(item) == rows.map.decoding - 1
            item.decoding = True
        elif action == 2 and items:
            rows.map.release(items.pop(which % len(items)))
        rows.check(items)


def test_a_full_map_takes_no_more() -> None:
    rows = Rows(2)
    rows.take(Item("a"))
    rows.take(Item("b"))
    with pytest.raises(IndexError, match="all 2 slots are taken"):
        rows.take(Item("c"))


def test_a_released_item_has_no_row() -> None:
    rows = Rows(1)
    item = Item("a")
    rows.take(item)
    rows.map.release(item)
    with pytest.raises(KeyError):
        rows.map.row_of(item)
