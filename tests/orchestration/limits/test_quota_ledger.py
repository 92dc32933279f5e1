"""What gateways share out of one limit, under any order of asking, ending and giving up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.limits import QuotaLedger
from orchestration.limits.quota_ledger import BLOCK, WANT_S

GATEWAYS = ("a", "b", "c")
STEPS = st.lists(
    st.tuples(st.sampled_from(GATEWAYS), st.sampled_from(["ask", "end", "tidy", "wait"])), max_size=120
)


@given(STEPS, st.integers(1, 12))
def test_gateways_together_never_have_more_places_than_the_limit(
    steps: list[tuple[str, str]], limit: int
) -> None:
    book, now = QuotaLedger(), 1000.0
    used = dict.fromkeys(GATEWAYS, 0)
    for name, what in steps:
        now += 3 * WANT_S if what == "wait" else 0.01
        if what == "ask":
            if used[name] >= book.usable(name, limit, now):
                book = book.draw_permits(name, used[name], limit, now)
            if used[name] < book.usable(name, limit, now):
                used[name] += 1
        elif what == "end" and used[name]:
            used[name] -= 1
        elif what == "tidy":
            book = book.yield_permits(name, used[name], limit, now)
        assert sum(book.permits.values()) <= limit
        assert all(used[each] <= book.permits.get(each, 0) for each in GATEWAYS)


@given(st.integers(1, 50), st.data())
def test_one_gateway_gets_every_place_that_no_other_uses(limit: int, data: st.DataObject) -> None:
    now = 1000.0
    used = data.draw(st.integers(0, limit))
    book = QuotaLedger().draw_permits("a", 0, limit, now)
    assert book.permits == {"a": limit}
    mine = 0
    for _ in range(limit):
        if mine >= book.usable("b", limit, now):
            book = book.draw_permits("b", mine, limit, now)
            book = book.yield_permits("a", used, limit, now)
            book = book.draw_permits("b", mine, limit, now)
        mine += mine < book.usable("b", limit, now)
    assert mine == limit - used


@pytest.mark.parametrize(("limit", "parts"), [(10, {5}), (9, {4, 5}), (2, {1})])
def test_two_gateways_that_both_want_more_than_there_is_come_to_have_the_same(
    limit: int, parts: set[int]
) -> None:
    """Each asks again whenever it is refused, and what was begun ends one after another."""
    book, now = QuotaLedger(), 1000.0
    used = {"a": 0, "b": 0}
    turns = dict.fromkeys(used, 0)
    for turn in range(200):
        now += 0.05
        for name in used if turn else ["a"]:
            while used[name] < book.usable(name, limit, now):
                used[name] += 1
                turns[name] += 1
            book = book.draw_permits(name, used[name], limit, now)
        for name in used:
            if used[name] and turn % 3 == 0:
                used[name] -= 1
            book = book.yield_permits(name, used[name], limit, now)
    assert set(book.permits.values()) <= parts
    assert min(turns.values()) > 0.4 * max(turns.values()), "none is left to starve"


@given(
    st.lists(st.tuples(st.floats(0, 500), st.floats(0, 20), st.booleans()), max_size=60),
    st.integers(1, 1000),
)
def test_gateways_together_never_draw_more_tokens_than_flow_in(
    steps: list[tuple[float, float, bool]], per_minute: int
) -> None:
    book, began = QuotaLedger(), 1000.0
    now, drawn = began, 0.0
    for needed, passed, back in steps:
        now += passed
        if back:
            book, drawn = book.give_tokens(drawn, per_minute, now), 0.0
            began = now - 60 * (1 - book.tokens / per_minute)
        else:
            before = book.refilled(per_minute, now).tokens
            book, taken = book.draw_tokens(needed, per_minute, now)
            assert (taken == 0) == (before < needed or before == 0)
            assert taken <= needed + per_minute / BLOCK
            drawn += taken
        assert 0 <= book.tokens <= per_minute
        assert drawn <= per_minute * (1 + (now - began) / 60) * (1 + 1e-9) + 1e-6


def test_what_a_gateway_had_that_is_gone_is_free_again() -> None:
    book = QuotaLedger().draw_permits("gone", 0, 4, 1000.0).draw_permits("b", 0, 4, 1000.0)
    assert (book.permits["gone"], book.permits["b"]) == (4, 0)
    book = book.only({"b"}).draw_permits("b", 0, 4, 1000.1)
    assert book.permits == {"b": 4}


def test_a_clock_that_is_behind_lets_nothing_flow_twice() -> None:
    book = QuotaLedger().refilled(60, 1000.0)
    book, taken = book.draw_tokens(58, 60, 1000.0)
    behind = book.refilled(60, 990.0)
    assert behind == book
    assert behind.refilled(60, 1001.0).tokens == pytest.approx(60 - taken + 1)
