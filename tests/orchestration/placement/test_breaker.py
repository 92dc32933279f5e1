from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.placement import BreakerSettings, Outcome
from orchestration.placement.breaker import Breaker, State

SETTINGS = BreakerSettings(dwell_s=1, max_dwell_s=8, jitter=0.25)


def tripped(settings: BreakerSettings = SETTINGS) -> Breaker:
    breaker = Breaker(settings, Random(1))
    for _ in range(settings.min_calls):
        breaker.end(Outcome.FAILED, 0.0, probe=breaker.begin(0.0))
    return breaker


def test_it_stays_closed_until_enough_calls_tell() -> None:
    breaker = Breaker(SETTINGS, Random(1))
    for _ in range(SETTINGS.min_calls - 1):
        breaker.end(Outcome.FAILED, 0.0, probe=False)
    assert breaker.state(0.0) is State.CLOSED
    breaker.end(Outcome.FAILED, 0.0, probe=False)
    assert breaker.state(0.0) is State.OPEN
    assert not breaker.allows(0.0)


def test_slow_calls_trip_it_as_well() -> None:
    breaker = Breaker(SETTINGS, Random(1))
    for _ in range(10):
        breaker.end(Outcome.SLOW, 0.0, probe=False)
    assert breaker.state(0.0) is State.OPEN


def test_few_failures_among_many_calls_do_not() -> None:
    breaker = Breaker(SETTINGS, Random(1))
    for number in range(200):
        breaker.end(Outcome.FAILED if number % 3 == 0 else Outcome.SUCCEEDED, number / 100, probe=False)
    assert breaker.state(2.0) is State.CLOSED


def test_old_failures_are_forgotten() -> None:
    breaker = Breaker(SETTINGS, Random(1))
    for number in range(20):
        breaker.end(Outcome.FAILED, number * SETTINGS.window_s / 3, probe=False)
    assert breaker.state(1000.0) is State.CLOSED


def test_outcomes_that_say_nothing_about_the_node_are_not_counted() -> None:
    breaker = Breaker(SETTINGS, Random(1))
    for _ in range(100):
        breaker.end(Outcome.UNKNOWN, 0.0, probe=False)
    assert breaker.state(0.0) is State.CLOSED


def test_after_the_dwell_a_single_probe_goes_through() -> None:
    breaker = tripped()
    now = breaker.until
    assert breaker.state(now) is State.HALF_OPEN
    assert breaker.allows(now)
    assert breaker.begin(now)
    assert not breaker.allows(now)
    breaker.end(Outcome.SUCCEEDED, now + 1, probe=True)
    assert breaker.state(now + 1) is State.CLOSED
    assert breaker.allows(now + 1)


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_a_limit() -> None:
    breaker = tripped()
    dwells = []
    now = breaker.until
    for _ in range(6):
        breaker.end(Outcome.FAILED, now, probe=breaker.begin(now))
        dwells.append(breaker.until - now)
        now = breaker.until
    for dwell, middle in zip(dwells, (2, 4, 8, 8, 8, 8), strict=True):
        assert middle * 0.75 <= dwell <= middle * 1.25


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.SLOW])
def test_calls_begun_before_it_opened_decide_nothing(outcome: Outcome) -> None:
    breaker = tripped()
    until = breaker.until
    breaker.end(outcome, until, probe=False)
    assert breaker.until == until


def test_a_probe_that_was_cancelled_lets_another_one_through() -> None:
    breaker = tripped()
    now = breaker.until
    breaker.end(Outcome.UNKNOWN, now, probe=breaker.begin(now))
    assert breaker.allows(now)
    assert breaker.state(now) is State.HALF_OPEN


def test_dwells_of_many_breakers_do_not_end_together() -> None:
    ends = set()
    for seed in range(50):
        breaker = Breaker(SETTINGS, Random(seed))
        for _ in range(5):
            breaker.end(Outcome.FAILED, 0.0, probe=False)
        ends.add(breaker.until)
    assert len(ends) == 50


@given(
    st.lists(st.tuples(st.sampled_from(Outcome), st.floats(0, 5), st.booleans()), max_size=200),
    st.integers(0, 1000),
)
def test_whatever_happens_at_most_one_probe_is_out_and_an_open_one_lets_in_again(
    calls: list[tuple[Outcome, float, bool]], seed: int
) -> None:
    breaker = Breaker(SETTINGS, Random(seed))
    now, out = 0.0, False
    for outcome, pause, late in calls:
        now += pause
        if breaker.allows(now):
            probe = breaker.begin(now)
            assert not (probe and out)
            if probe and late:
                out = True
                continue
            breaker.end(outcome, now, probe=probe)
        elif out:
            breaker.end(outcome, now, probe=True)
            out = False
        else:
            assert now < breaker.until <= now + SETTINGS.max_dwell_s * (1 + SETTINGS.jitter)


@pytest.mark.parametrize("outcome", [Outcome.HUNG, Outcome.LIMITED])
def test_a_hung_call_and_a_servers_limit_open_it_at_once_and_longer_each_time(outcome: Outcome) -> None:
    breaker, now = Breaker(SETTINGS.model_copy(update={"hung_s": 0.1}), Random(1)), 0.0
    for dwell in (1, 2, 4, 8, 8):
        assert breaker.end(outcome, now, probe=breaker.begin(now))
        assert dwell * 0.75 <= breaker.until - now <= dwell * 1.25
        assert not breaker.allows(breaker.until - 0.01)
        now = breaker.until
        assert breaker.state(now) is State.HALF_OPEN


def test_it_stays_open_for_as_long_as_a_server_asks_up_to_a_limit() -> None:
    breaker = Breaker(SETTINGS, Random(1))
    breaker.end(Outcome.LIMITED, 0.0, probe=False, hold_s=40)
    assert 40 <= breaker.until <= 42
    breaker.end(Outcome.LIMITED, 1.0, probe=False, hold_s=50)  # of a call that was begun before
    assert breaker.until == 51
    breaker.end(Outcome.LIMITED, 1.0, probe=False, hold_s=1e9)
    assert breaker.until == 1 + SETTINGS.max_hold_s


def test_after_a_limit_of_a_server_that_answers_others_no_probe_is_needed() -> None:
    breaker = Breaker(SETTINGS, Random(1))
    breaker.end(Outcome.SUCCEEDED, 0.0, probe=False)
    breaker.end(Outcome.LIMITED, 1.0, probe=False)
    assert not breaker.allows(1.5)
    assert [breaker.begin(3.0) for _ in range(3)] == [False] * 3
    assert breaker.state(3.0) is State.CLOSED
