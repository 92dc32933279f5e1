"""Limits under any order of asking, ending and waiting."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.limits import (
    LimitExceeded,
    Permit,
    QuotaLimit,
    RateLimiter,
    Reservation,
    TokenBucket,
    TooManyTokens,
)
from orchestration.limits.rate_limiter import MAX_IDLE_ACCOUNTS

CALLERS = st.sampled_from(["alice", "bob", "carol"])
NO_LIMIT = QuotaLimit()
STEPS = st.lists(
    st.tuples(CALLERS, st.integers(0, 400), st.floats(0, 1), st.sampled_from([0.0, 0.3, 10.0, 90.0])),
    max_size=60,
)


@given(STEPS, st.integers(1, 1000), st.integers(1, 1000))
def test_tokens_are_never_overdrawn_by_a_caller_nor_by_all_together(
    steps: list[tuple[str, int, float, float]], per_caller: int, in_all: int
) -> None:
    limits = RateLimiter(
        QuotaLimit(tokens_per_minute=in_all), QuotaLimit(tokens_per_minute=per_caller), {}, now=0.0
    )
    now = 0.0
    spent: dict[str, float] = {}
    began: dict[str, float] = {}
    open_: list[tuple[str, int, Reservation]] = []
    for caller, tokens, share, passed in steps:
        now += passed
        began.setdefault(caller, now)
        try:
            open_.append((caller, tokens, limits.reserve(caller, tokens, now)))
            spent[caller] = spent.get(caller, 0) + tokens
        except LimitExceeded:
            assert min(limits.tokens_left(caller, now), limits.tokens_left("nobody", now)) < tokens
        except TooManyTokens:
            assert tokens > min(per_caller, in_all)
        if share < 0.6 and open_:  # one of those at work ends, having used part of what it reserved
            who, reserved, reservation = open_.pop(int(share * len(open_)))
            used = int(reserved * share)
            reservation.settle(used, now)
            reservation.settle(reserved, now)
            spent[who] -= reserved - used
        for who, total in spent.items():
            assert total <= per_caller * (1 + (now - began[who]) / 60) + 1e-6
            assert limits.tokens_left(who, now) >= -1e-6
        assert sum(spent.values()) <= in_all * (1 + now / 60) + 1e-6


@given(
    st.lists(st.tuples(CALLERS, st.sampled_from(["acquire", "begin", "release"])), max_size=80),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 6),
)
def test_no_more_are_at_work_or_wait_than_the_limits_say_and_none_is_refused_without_need(
    steps: list[tuple[str, str]], each: int, queue: int, in_all: int
) -> None:
    limits = RateLimiter(
        QuotaLimit(requests_in_flight=in_all),
        QuotaLimit(requests_in_flight=each, queue_depth=queue),
        {},
        now=0,
    )
    at_work: dict[str, list[tuple[Permit, list[bool]]]] = {"alice": [], "bob": [], "carol": []}
    for caller, what in steps:
        mine = at_work[caller]
        if what == "acquire":
            waiting = sum(not began[0] for _, began in mine)
            total = sum(map(len, at_work.values()))
            full = len(mine) >= each or waiting >= queue or total >= in_all
            if full:
                with pytest.raises(LimitExceeded):
                    limits.acquire(caller, 0)
            else:
                mine.append((limits.acquire(caller, 0), [False]))
        elif mine and what == "begin":
            permit, began = mine[0]
            permit.mark_started()
            began[0] = True
        elif mine:
            permit, _ = mine.pop(0)
            permit.release()
            permit.release()
        assert limits.in_flight == sum(map(len, at_work.values()))
        assert limits.waiting == sum(not began[0] for mine in at_work.values() for _, began in mine)


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_refused_caller_is_served_after_retry_after(per_minute: int, first: int, then: int) -> None:
    bucket = TokenBucket(per_minute, 0.0)
    first, then = min(first, per_minute), min(then, per_minute)
    bucket.take(first, 0.0)
    wait_s = bucket.wait_s(then, 0.0)
    if wait_s > 1e-3:
        assert bucket.wait_s(then, wait_s / 2) > 0
    assert bucket.wait_s(then, wait_s * (1 + 1e-9) + 1e-9) == 0


def test_a_longer_answer_than_was_reserved_is_owed_by_the_next() -> None:
    limits = RateLimiter(NO_LIMIT, QuotaLimit(tokens_per_minute=60), {}, now=0.0)
    limits.reserve("a", 50, 0.0).settle(120, 0.0)
    with pytest.raises(LimitExceeded, match=r"0 of 60 tokens per minute of caller 'a' are left") as caught:
        limits.reserve("a", 1, 0.0)
    assert caught.value.retry_after_s == pytest.approx(61)
    assert (caught.value.status, caught.value.limit) == (429, "tokens_per_minute")
    limits.reserve("b", 60, 0.0)
    limits.reserve("a", 1, 61.1)


def test_a_request_above_the_limit_is_refused_for_good() -> None:
    limits = RateLimiter(NO_LIMIT, QuotaLimit(tokens_per_minute=60), {}, now=0.0)
    with pytest.raises(TooManyTokens, match=r"61 tokens.* of 60 .*max_tokens") as caught:
        limits.reserve("a", 61, 0.0)
    assert (caught.value.status, caught.value.param) == (400, "max_tokens")


def test_a_refusal_takes_nothing_from_anybody() -> None:
    limits = RateLimiter(QuotaLimit(tokens_per_minute=100), QuotaLimit(tokens_per_minute=60), {}, now=0.0)
    limits.reserve("a", 60, 0.0)
    with pytest.raises(LimitExceeded, match="40 of 100 tokens per minute are left"):
        limits.reserve("b", 50, 0.0)
    limits.reserve("b", 40, 0.0)


def test_limits_of_its_own_hold_for_a_named_caller_instead_of_those_for_each() -> None:
    limits = RateLimiter(
        NO_LIMIT, QuotaLimit(requests_in_flight=1), {"big": QuotaLimit(requests_in_flight=2)}, now=0
    )
    limits.acquire("big", 0)
    limits.acquire("big", 0)
    limits.acquire("small", 0)
    for caller in ("big", "small"):
        with pytest.raises(LimitExceeded, match=f"of caller '{caller}'"):
            limits.acquire(caller, 0)
    assert limits.most_tokens("big", 0) is None
    assert limits.tokens_left("big", 0) == math.inf


def test_names_that_callers_make_up_do_not_pile_up_and_those_at_work_stay() -> None:
    limits = RateLimiter(NO_LIMIT, QuotaLimit(requests_in_flight=1), {}, now=0)
    limits.acquire("first", 0)
    for number in range(MAX_IDLE_ACCOUNTS + 50):
        limits.acquire(f"made up {number}", 0).release()
    assert limits.callers <= MAX_IDLE_ACCOUNTS
    with pytest.raises(LimitExceeded):
        limits.acquire("first", 0)


def test_limits_that_are_changed_hold_for_new_requests_and_end_nothing() -> None:
    limiter = RateLimiter(NO_LIMIT, QuotaLimit(requests_in_flight=3), {}, now=0)
    permits = [limiter.acquire("alice", 0) for _ in range(3)]
    limiter.change_limits(NO_LIMIT, QuotaLimit(requests_in_flight=1), {}, here=NO_LIMIT, now=0, sharing=False)
    with pytest.raises(LimitExceeded, match="1 of 1 requests"):
        limiter.acquire("alice", 0)
    for permit in permits[:2]:
        permit.release()
    with pytest.raises(LimitExceeded):
        limiter.acquire("alice", 0)
    permits[2].release()
    limiter.acquire("alice", 0).release()
    limiter.change_limits(NO_LIMIT, NO_LIMIT, {}, here=NO_LIMIT, now=0, sharing=False)
    assert len([limiter.acquire("alice", 0) for _ in range(9)]) == 9


def test_tokens_follow_a_limit_that_is_raised_lowered_and_taken_away() -> None:
    def changed(per_minute: int | None) -> None:
        each = QuotaLimit(tokens_per_minute=per_minute)
        limiter.change_limits(NO_LIMIT, each, {}, here=NO_LIMIT, now=0, sharing=False)

    limiter = RateLimiter(NO_LIMIT, QuotaLimit(tokens_per_minute=100), {}, now=0)
    reserved = limiter.reserve("alice", 80, 0)
    changed(200)
    assert limiter.tokens_left("alice", 0) == 120, "what was spent stays spent"
    changed(50)
    assert limiter.tokens_left("alice", 0) == 50
    reserved.settle(10, 0)
    assert limiter.tokens_left("alice", 0) == 50, "no more than a minute's tokens come back"
    changed(None)
    assert limiter.most_tokens("alice", 0) is None
    changed(30)
    assert limiter.tokens_left("alice", 0) == 30
