from __future__ import annotations

import mmap

import numpy as np

from actors.engine.kv import KvCache, KvShape

SHAPE = KvShape(layers=2, kv_heads=2, head_dim=8)


def filled(rows: int = 3, length: int = 1024) -> KvCache:
    cache = KvCache(SHAPE, rows=rows, length=length)
    cache.array[:] = np.arange(cache.array.size, dtype=np.float32).reshape(cache.array.shape)
    for row in range(rows):
        cache.claim(row, length)
    return cache


def test_a_token_takes_two_floats_for_each_layer_head_and_dimension() -> None:
    cache = filled(rows=1)
    assert SHAPE.token_bytes == 2 * 2 * 2 * 8 * 4
    assert cache.array.nbytes == 1024 * SHAPE.token_bytes


def test_moving_copies_the_tokens_asked_for_and_nothing_else() -> None:
    cache = filled()
    before = cache.array.copy()
    cache.move(2, 0, 5)
    assert np.array_equal(cache.array[:, 0, :, :5], before[:, 2, :, :5])
    assert np.array_equal(cache.array[:, 0, :, 5:], before[:, 0, :, 5:])
    assert np.array_equal(cache.array[:, 1:], before[:, 1:])


def test_the_first_rows_of_a_layer_are_one_block_of_memory() -> None:
    cache = filled()
    assert all(cache.array[layer, :2].flags["C_CONTIGUOUS"] for layer in range(4))


def test_trimming_gives_up_one_row_and_leaves_its_neighbours() -> None:
    cache = filled()
    before = cache.array.copy()
    assert cache.array[0, 1].nbytes % mmap.PAGESIZE == 0
    cache.trim(1)
    assert not cache.array[:, 1].any()
    assert np.array_equal(cache.array[:, ::2], before[:, ::2])
    assert cache.touched == [1024, 0, 1024]


def test_memory_is_fitted_to_its_limit_by_trimming_free_rows_only() -> None:
    cache = filled()
    cache.touched[:] = [500, 400, 300]
    cache.fit(1000, free=[1, 2])
    assert cache.touched == [500, 0, 300]
    cache.fit(100, free=[2])
    assert cache.touched == [500, 0, 0]
