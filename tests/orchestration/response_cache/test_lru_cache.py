"""The cache against a plain model of what it promises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestration.response_cache import LruCache
from orchestration.response_cache.lru_cache import OVERHEAD_BYTES

KEYS = st.sampled_from("abcdef")
PUTS = st.tuples(KEYS, st.integers(0, 300), st.sampled_from([0.0, 1.0, 5.0, 100.0]))
STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 3.0]), st.one_of(PUTS, KEYS)), max_size=60)


@given(STEPS, st.integers(0, 4), st.integers(0, 4 * OVERHEAD_BYTES))
def test_it_never_exceeds_its_bounds_and_gives_only_what_was_put_last_and_is_not_expired(
    steps: list[tuple[float, tuple[str, int, float] | str]], max_entries: int, max_bytes: int
) -> None:
    cache = LruCache(max_entries=max_entries, max_bytes=max_bytes)
    newest: dict[str, tuple[bytes, float]] = {}
    now = 0.0
    for number, (passed, what) in enumerate(steps):
        now += passed
        if isinstance(what, str):
            found = cache.get(what, now)
            if found is not None:
                value, expires_at = newest[what]
                assert found == value
                assert now < expires_at
        else:
            key, size, ttl_s = what
            value = bytes([number]) * size
            kept = cache.put(key, value, now, ttl_s)
            newest[key] = (value, now + ttl_s)
            assert kept == (cache.get(key, now) == value) or not max_entries
        assert len(cache) <= max_entries
        assert cache.size <= max_bytes
        assert (cache.size == 0) == (len(cache) == 0)


@given(st.lists(KEYS, min_size=1, max_size=40), st.integers(1, 5))
def test_what_makes_room_is_what_was_used_longest_ago(used: list[str], max_entries: int) -> None:
    cache = LruCache(max_entries=max_entries, max_bytes=10**6)
    for key in used:
        if cache.get(key, 0) is None:
            cache.put(key, key.encode(), 0, 10)
    latest = list(dict.fromkeys(reversed(used)))[:max_entries]
    assert all(cache.get(key, 0) == key.encode() for key in latest)
    assert len(cache) == len(latest)


def test_an_entry_older_than_the_reader_wants_stays_for_others() -> None:
    cache = LruCache(max_entries=1, max_bytes=10**4)
    assert cache.put("k", b"v", 0, ttl_s=100)
    assert cache.get("k", 10, max_age_s=10) is None
    assert cache.get("k", 10, max_age_s=11) == b"v"
    assert cache.get("k", 10) == b"v"
    assert cache.get("k", 100) is None
    assert len(cache) == 0


def test_a_value_that_could_never_fit_evicts_nothing() -> None:
    cache = LruCache(max_entries=10, max_bytes=2 * OVERHEAD_BYTES)
    cache.put("small", b"v", 0, 10)
    assert not cache.put("large", b"x" * 3 * OVERHEAD_BYTES, 0, 10)
    assert cache.get("small", 0) == b"v"
    assert cache.evicted == 0
