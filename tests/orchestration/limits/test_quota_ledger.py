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
    ledger, now = QuotaLedger(), 1000.0
    used = dict.fromkeys(GATEWAYS, 0)
    for name, what in steps:
        now += 3 * WANT_S if what == "wait" else 0.01
        if what == "ask":
            if used[name] >= ledger.usable(name, limit, now):
                ledger = ledger.draw_permits(name, used[name], limit, now)
            if used[name] < ledger.usable(name, limit, now):
                used[name] += 1
        elif what == "end" and used[name]:
            used[name] -= 1
        elif what == "tidy":
            ledger = ledger.yield_permits(name, used[name], limit, now)
        assert sum(ledger.permits.values()) <= limit
        assert all(used[each] <= ledger.permits.get(each, 0) for each in GATEWAYS)


@given(st.integers(1, 50), st.data())
def test_one_gateway_gets_every_place_that_no_other_uses(limit: int, data: st.DataObject) -> None:
    now = 1000.0
    used = data.draw(st.integers(0, limit))
    ledger = QuotaLedger().draw_permits("a", 0, limit, now)
    assert ledger.permits == {"a": limit}
    mine = 0
    for _ in range(limit):
        if mine >= ledger.usable("b", limit, now):
            ledger = ledger.draw_permits("b", mine, limit, now)
            ledger = ledger.yield_permits("a", used, limit, now)
            ledger = ledger.draw_permits("b", mine, limit, now)
        mine += mine < ledger.usable("b", limit, now)
    assert mine == limit - used


@pytest.mark.parametrize(("limit", "parts"), [(10, {5}), (9, {4, 5}), (2, {1})])
def test_two_gateways_that_both_want_more_than_there_is_come_to_have_the_same(
    limit: int, parts: set[int]
) -> None:
    """Each asks again whenever it is refused, and what was begun ends one after another."""
    ledger, now = QuotaLedger(), 1000.0
    used = {"a": 0, "b": 0}
    turns = dict.fromkeys(used, 0)
    for turn in range(200):
        now += 0.05
        for name in used if turn else ["a"]:
            while used[name] < ledger.usable(name, limit, now):
                used[name] += 1
                turns[name] += 1
            ledger = ledger.draw_permits(name, used[name], limit, now)
        for name in used:
            if used[name] and turn % 3 == 0:
                used[name] -= 1
            ledger = ledger.yield_permits(name, used[name], limit, now)
    assert set(ledger.permits.values()) <= parts
    assert min(turns.values()) > 0.4 * max(turns.values()), "none is left to starve"


@given(
    st.lists(st.tuples(st.floats(0, 500), st.floats(0, 20), st.booleans()), max_size=60),
    st.integers(1, 1000),
)
def test_gateways_together_never_draw_more_tokens_than_flow_in(
    steps: list[tuple[float, float, bool]], per_minute: int
) -> None:
    ledger, began = QuotaLedger(), 1000.0
    now, drawn = began, 0.0
    for needed, passed, back in steps:
        now += passed
        if back:
            ledger, drawn = ledger.give_tokens(drawn, per_minute, now), 0.0
            began = now - 60 * (1 - ledger.tokens / per_minute)
        else:
            before = ledger.refilled(per_minute, now).tokens
            ledger, taken = ledger.draw_tokens(needed, per_minute, now)
            assert (taken == 0) == (before < needed or before == 0)
            assert taken <= needed + per_minute / BLOCK
            drawn += taken
        assert 0 <= ledger.tokens <= per_minute
        assert drawn <= per_minute * (1 + (now - began) / 60) * (1 + 1e-9) + 1e-6


def test_what_a_gateway_had_that_is_gone_is_free_again() -> None:
    ledger = QuotaLedger().draw_permits("gone", 0, 4, 1000.0).draw_permits("b", 0, 4, 1000.0)
    assert (ledger.permits["gone"], ledger.permits["b"]) == (4, 0)
    ledger = ledger.only({"b"}).draw_permits("b", 0, 4, 1000.1)
    assert ledger.permits == {"b": 4}


def test_a_clock_that_is_behind_lets_nothing_flow_twice() -> None:
    ledger = QuotaLedger().refilled(60, 1000.0)
    ledger, taken = ledger.draw_tokens(58, 60, 1000.0)
    behind = ledger.refilled(60, 990.0)
    assert behind == ledger
    assert behind.refilled(60, 1001.0).tokens == pytest.approx(60 - taken + 1)


@given(
    permits=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 20), min_size=1),
    limit=st.integers(1, 20),
    data=st.data(),
)
def test_below_a_lowered_limit_nobody_gets_a_permit_before_enough_have_ended(
    permits: dict[str, int], limit: int, data: st.DataObject
) -> None:
    ledger = QuotaLedger(permits=permits)
    used = {name: data.draw(st.integers(0, count)) for name, count in permits.items()}
    for _ in range(2):
        for name in permits:
            room = ledger.usable(name, limit, 0.0) - used[name]
            if ledger.free(limit) < 0 and room > 0:
                assert sum(ledger.permits.values()) - ledger.permits[name] + used[name] < limit
            ledger = ledger.yield_permits(name, used[name], limit, 0.0)
    assert sum(ledger.permits.values()) <= max(limit, sum(used.values()))
    assert all(ledger.permits.get(name, 0) >= count for name, count in used.items())
