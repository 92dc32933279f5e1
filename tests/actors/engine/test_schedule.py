from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.schedule import allowance, next_to_prefill


@dataclass
class Reading:
    unread: int


def test_a_short_prompt_passes_a_long_one_that_still_goes_on() -> None:
    prompts = [Reading(2000), Reading(40)]
    assert [next_to_prefill(prompts, turn) for turn in range(4)] == [1, 0, 1, 0]


def test_equal_prompts_go_in_order_of_arrival() -> None:
    assert next_to_prefill([Reading(40), Reading(40)], 0) == 0


def test_nothing_to_read_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        next_to_prefill([], 0)


@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=12), chunk=st.integers(1, 64))
def test_the_oldest_prompt_never_waits_for_more_than_half_of_the_turns(
    lengths: list[int], chunk: int
) -> None:
    prompts = [Reading(length) for length in lengths]
    oldest, turns = prompts[0], 0
    while oldest in prompts:
        at = next_to_prefill(prompts, turns)
        turns += 1
        prompts[at].unread -= chunk
        if prompts[at].unread <= 0:
            prompts.pop(at)
    assert turns <= 2 * -(-lengths[0] // chunk)


def test_a_prompt_that_can_end_in_this_step_may_use_twice_the_budget() -> None:
    assert allowance(64, 0, 100) == 128
    assert allowance(64, 64, 64) == 128
    assert allowance(64, 64, 65) == 64
    assert allowance(64, 0, 4000) == 64
