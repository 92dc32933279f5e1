"""The test that ends a vote early: its probabilities are exact at the limits, and hold elsewhere."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.patterns.consensus import lead_probability

WEIGHTS = st.sampled_from((0.5, 0.8, 1.0, 2.0))


def test_two_of_three_are_certain_and_one_of_three_is_not_enough() -> None:
    assert lead_probability(2, 0, 0, [1]) == 1
    assert lead_probability(1, 0, 0, [1, 1]) == pytest.approx(5 / 6)
    assert lead_probability(2, 0, 0, [1, 1, 1]) == pytest.approx(0.95)


def test_a_tie_stands_for_nothing() -> None:
    assert lead_probability(1, 1, 1, []) == 0
    assert lead_probability(1, 1, 1, [1, 1]) == 0


def test_with_all_votes_in_the_leader_stays() -> None:
    assert lead_probability(2, 1, 1, []) == 1


@given(st.integers(0, 8), st.integers(0, 8), st.lists(WEIGHTS, max_size=6))
def test_it_is_one_exactly_where_no_vote_out_can_change_the_outcome(
    leader: int, runner_up: int, out: list[float]
) -> None:
    worst = min(
        (leader + sum(w for w, yes in zip(out, taken, strict=True) if yes))
        - (runner_up + sum(w for w, yes in zip(out, taken, strict=True) if not yes))
        for taken in product((True, False), repeat=len(out))
    )
    probability = lead_probability(leader, runner_up, runner_up, out)
    assert 0 <= probability <= 1
    if worst > 1e-6:
        assert probability == pytest.approx(1)
    elif leader > runner_up:
        assert probability < 1


@given(st.integers(1, 6), st.integers(0, 5), st.lists(st.just(1.0), max_size=8))
def test_one_more_vote_for_the_leader_makes_it_surer(leader: int, runner_up: int, out: list[float]) -> None:
    before = lead_probability(leader, runner_up, runner_up, [*out, 1.0])
    assert lead_probability(leader + 1, runner_up, runner_up, out) >= before - 1e-9


@pytest.mark.simulation
@pytest.mark.parametrize("voters", [5, 9, 16])
def test_votes_that_end_early_have_the_outcome_of_all_votes_as_often_as_promised(voters: int) -> None:
    draws = np.random.default_rng(7)
    ended = same = 0
    for _ in range(1_500):
        shares = draws.dirichlet(np.ones(draws.integers(2, 5)))
        votes = draws.choice(len(shares), size=voters, p=shares)
        final = np.bincount(votes, minlength=len(shares))
        for cast in range(1, voters):
            position = np.bincount(votes[:cast], minlength=len(shares))
            order = np.sort(position)[::-1]
            if lead_probability(order[0], order[1], cast - order[0], [1.0] * (voters - cast)) >= 0.95:
                ended += 1
                same += final[position.argmax()] == final.max()
                break
    assert ended > 700
    assert same / ended > 0.95
