from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from actors.engine.kv import KvCache, KvShape
from actors.engine.prefix import Chain, PrefixCache

SHAPE = KvShape(layers=1, kv_heads=1, head_dim=4)
BLOCK = 2


def made(blocks: int) -> tuple[KvCache, PrefixCache]:
    kv = KvCache(SHAPE, rows=2, length=64)
    return kv, PrefixCache(kv, block=BLOCK, capacity_bytes=blocks * BLOCK * SHAPE.token_bytes)


def write(kv: KvCache, prompt: NDArray[np.int64]) -> None:
    """What a model would: each position depends on all tokens up to it."""
    sums = np.cumsum(prompt * (np.arange(len(prompt)) + 1)).astype(np.float32)
    kv.array[:, 0, :, : len(prompt)] = sums[np.newaxis, np.newaxis, :, np.newaxis]


def read(prefix: PrefixCache, prompt: NDArray[np.int64], row: int = 1) -> int:
    """How many tokens of `prompt` could be copied to `row`."""
    chain, at = Chain(), 0
    while at + BLOCK <= len(prompt) and prefix.load(chain, prompt[at : at + BLOCK], row, at):
        at += BLOCK
    prefix.touch(chain)
    return at


def keep(kv: KvCache, prefix: PrefixCache, prompt: NDArray[np.int64]) -> None:
    write(kv, prompt)
    chain = Chain()
    for at in range(0, len(prompt) - BLOCK + 1, BLOCK):
        prefix.store(chain, prompt[at : at + BLOCK], 0, at)
    prefix.touch(chain)


@given(prompts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=20))
def test_what_is_copied_is_what_this_very_prefix_wrote(prompts: list[list[int]]) -> None:
    kv, prefix = made(blocks=5)
    for words in prompts:
        prompt = np.array(words, np.int64)
        found = read(prefix, prompt)
        write(kv, prompt)
        assert np.array_equal(kv.array[:, 1, :, :found], kv.array[:, 0, :, :found])
        keep(kv, prefix, prompt)
        assert len(prefix) <= prefix.capacity


def test_a_prefix_ends_where_prompts_part() -> None:
    kv, prefix = made(blocks=10)
    keep(kv, prefix, np.array([1, 2, 3, 4, 5, 6]))
    assert read(prefix, np.array([1, 2, 3, 4, 7, 8])) == 4
    assert read(prefix, np.array([3, 4, 5, 6])) == 0


def test_the_end_of_an_old_prompt_goes_before_the_beginning_it_shares() -> None:
    kv, prefix = made(blocks=4)
    keep(kv, prefix, np.array([1, 1, 2, 2, 3, 3]))
    keep(kv, prefix, np.array([1, 1, 4, 4]))
    keep(kv, prefix, np.array([1, 1, 5, 5]))
    assert read(prefix, np.array([1, 1, 5, 5])) == 4
    assert read(prefix, np.array([1, 1, 2, 2, 3, 3])) == 4


def test_without_room_nothing_is_kept() -> None:
    kv, prefix = made(blocks=0)
    keep(kv, prefix, np.array([1, 2, 3, 4]))
    assert len(prefix) == 0
    assert read(prefix, np.array([1, 2, 3, 4])) == 0


def test_a_cleared_cache_knows_nothing() -> None:
    kv, prefix = made(blocks=4)
    keep(kv, prefix, np.array([1, 2, 3, 4]))
    prefix.clear()
    assert read(prefix, np.array([1, 2, 3, 4])) == 0
