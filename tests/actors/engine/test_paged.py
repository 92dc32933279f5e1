from __future__ import annotations

import numpy as np

from actors.engine.kv import KvShape
from actors.engine.paged import PagedKv
from actors.engine.prefix import Chain, PrefixCache

SHAPE = KvShape(layers=1, kv_heads=1, head_dim=8)
BLOCK = 4


def made(rows: int = 3, blocks: int = 12) -> PagedKv:
    return PagedKv(SHAPE, rows=rows, blocks=blocks, block=BLOCK)


def blocks(kv: PagedKv, row: int, tokens: int) -> list[int]:
    table: list[int] = kv.tables(row, [tokens])[0].tolist()
    return table


def test_a_row_takes_a_block_when_its_last_one_is_full() -> None:
    kv = made()
    kv.extend(0, 0, 4)
    assert kv.resident == 1
    kv.extend(0, 4, 1)
    assert kv.resident == 2
    kv.extend(0, 5, 1)
    assert kv.resident == 2


def test_tables_of_rows_follow_each_other() -> None:
    kv = made()
    kv.extend(0, 0, 5)
    kv.extend(1, 0, 2)
    together, begins = kv.tables(0, [5, 2])
    assert begins.tolist() == [0, 2, 3]
    assert together.tolist() == blocks(kv, 0, 5) + blocks(kv, 1, 2)


def test_a_row_that_moves_takes_its_blocks_along() -> None:
    kv = made()
    kv.extend(0, 0, 4)
    kv.extend(2, 0, 8)
    moved = blocks(kv, 2, 8)
    kv.move(2, 0, 8)
    assert blocks(kv, 0, 8) == moved
    kv.extend(2, 0, 4)
    assert not set(blocks(kv, 2, 4)) & set(moved)


def test_a_new_prompt_in_a_row_begins_with_blocks_that_no_one_else_holds() -> None:
    kv = made()
    kv.extend(0, 0, 4)
    kv.keep(0, 0, 0)
    kept = blocks(kv, 0, 4)
    kv.extend(0, 0, 4)
    assert blocks(kv, 0, 4) != kept


def test_memory_of_free_rows_is_given_back_beyond_the_limit() -> None:
    kv = made()
    for row in range(3):
        kv.extend(row, 0, 8)
    kv.fit(12, [1, 2])
    assert kv.resident == 3
    kv.fit(0, [1, 2])
    assert kv.resident == 2


def test_a_cached_prefix_is_shared_and_stays_until_the_last_holder_goes() -> None:
    kv = made()
    prefix = PrefixCache(kv, block=BLOCK, capacity_bytes=4 * BLOCK * SHAPE.token_bytes)
    tokens = np.arange(BLOCK)
    kv.extend(0, 0, BLOCK)
    kv.planes[0][blocks(kv, 0, BLOCK)[0]] = 7
    assert prefix.store(Chain(), tokens, 0, 0)
    assert prefix.load(Chain(), tokens, 1, 0)
    assert blocks(kv, 1, BLOCK) == blocks(kv, 0, BLOCK)
    kv.fit(0, [0])
    prefix.clear()
    assert kv.resident == 1
    assert (kv.planes[0][blocks(kv, 1, BLOCK)[0]] == 7).all()
    kv.fit(0, [0, 1])
    assert kv.resident == 0


def test_an_evicted_prefix_gives_its_memory_back() -> None:
    kv = made()
    prefix = PrefixCache(kv, block=BLOCK, capacity_bytes=2 * BLOCK * SHAPE.token_bytes)
    for first in (0, 100, 200):
        kv.extend(0, 0, BLOCK)
        assert prefix.store(Chain(), np.arange(first, first + BLOCK), 0, 0)
    kv.fit(0, [0])
    assert kv.resident == 2
    prefix.shrink(0)
    assert kv.resident == 0
