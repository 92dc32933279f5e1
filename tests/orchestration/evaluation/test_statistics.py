"""Intervals and comparisons: against known values, and as often right as they say."""

from __future__ import annotations

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.evaluation.statistics import LEVEL, ComparisonVerdict, difference, mean_interval, sign_test

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=40)
MARKS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def binomial_quantile(trials: int, share: float, level: float) -> int:
    total = 0.0
    for hits in range(trials + 1):
        total += comb(trials, hits) * share**hits * (1 - share) ** (trials - hits)
        if total >= level:
            return hits
    return trials


@pytest.mark.parametrize(("right", "questions"), [(8, 20), (3, 25), (50, 100)])
def test_the_interval_of_right_answers_is_that_of_their_binomial(right: int, questions: int) -> None:
    found = mean_interval([1.0] * right + [0.0] * (questions - right))
    share, tail = right / questions, (1 - LEVEL) / 2
    assert found.mean == pytest.approx(share)
    assert found.low * questions == pytest.approx(binomial_quantile(questions, share, tail), abs=1)
    assert found.high * questions == pytest.approx(binomial_quantile(questions, share, 1 - tail), abs=1)


def test_with_many_values_it_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(3).beta(2, 3, size=2_000)
    found = mean_interval(values.tolist())
    half = 1.959964 * values.std() / sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, rel=0.005)
    assert found.high == pytest.approx(values.mean() + half, rel=0.005)


def test_values_that_are_all_the_same_leave_room_for_what_was_not_seen() -> None:
    z2 = 1.959963984540054**2
    right, wrong = mean_interval([1.0] * 20), mean_interval([0.0] * 20)
    assert (right.low, right.high) == pytest.approx((20 / (20 + z2), 1))
    assert (wrong.low, wrong.high) == pytest.approx((0, z2 / (20 + z2)))
    once = difference([1.0], [0.0]).interval
    assert once.low < 0 < once.high == once.mean == 1


@settings(max_examples=30, deadline=None)
@given(SHARES, st.integers(0, 3))
def test_an_interval_holds_its_mean_keeps_its_bounds_and_is_decided_by_its_seed(
    values: list[float], seed: int
) -> None:
    found = mean_interval(values, seed=seed)
    assert found == mean_interval(values, seed=seed)
    assert -1e-9 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= 1 + 1e-9


@pytest.mark.simulation
def test_the_true_share_lies_in_it_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(11)
    held = 0
    for _ in range(200):
        found = mean_interval((draws.random(50) < 0.4).astype(float).tolist())
        held += found.low <= 0.4 <= found.high
    assert 0.9 <= held / 200 <= 0.99


@pytest.mark.parametrize(
    ("wins", "losses", "p_value"),
    [(0, 0, 1), (1, 0, 1), (5, 0, 0.0625), (6, 0, 0.03125), (0, 6, 0.03125), (8, 2, 0.109375), (4, 4, 1)],
)
def test_the_sign_test_is_exact(wins: int, losses: int, p_value: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(p_value)


def test_a_comparison_by_question_sees_what_one_of_means_would_not() -> None:
    hard = np.random.default_rng(5).random(80) < 0.5
    theirs = hard.astype(float)
    ours = theirs.copy()
    ours[np.flatnonzero(theirs == 0)[:8]] = 1.0
    found = difference(ours.tolist(), theirs.tolist())
    assert (found.wins, found.losses) == (8, 0)
    assert found.verdict is ComparisonVerdict.BETTER
    unpaired = mean_interval(ours.tolist()), mean_interval(theirs.tolist())
    assert unpaired[0].low < unpaired[1].high
    assert difference(theirs.tolist(), ours.tolist()).verdict is ComparisonVerdict.WORSE


def test_five_of_five_are_too_few_to_show_anything() -> None:
    found = difference([1.0] * 5 + [0.0] * 5, [0.0] * 10)
    assert found.interval.low > 0
    assert found.verdict is ComparisonVerdict.OPEN


@settings(max_examples=30, deadline=None)
@given(MARKS)
def test_two_who_change_places_change_the_sign(marks: list[tuple[bool, bool]]) -> None:
    ours, theirs = [float(each) for each, _ in marks], [float(each) for _, each in marks]
    there, back = difference(ours, theirs), difference(theirs, ours)
    assert there.interval.mean == pytest.approx(-back.interval.mean)
    assert (there.wins, there.losses, there.p_value) == (back.losses, back.wins, back.p_value)
    assert there.interval.mean == pytest.approx(np.mean(ours) - np.mean(theirs))


def test_nothing_has_no_mean_and_two_must_have_answered_the_same() -> None:
    with pytest.raises(ValueError, match="without values"):
        mean_interval([])
    with pytest.raises(ValueError, match="zip"):
        difference([1.0], [1.0, 0.0])
