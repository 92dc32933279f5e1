from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.placement.retry_budget import RetryBudget


@given(st.lists(st.booleans(), max_size=500), st.floats(0, 1), st.integers(0, 20))
def test_retries_never_exceed_the_reserve_and_their_share_of_the_requests(
    requests: list[bool], share: float, reserve: int
) -> None:
    budget = RetryBudget(share=share, reserve=reserve)
    asked = made = 0
    for is_request in requests:
        if is_request:
            asked += 1
            budget.deposit()
        else:
            made += budget.withdraw()
        assert made <= reserve + share * asked + 1e-6


def test_a_full_budget_allows_as_many_retries_as_its_reserve() -> None:
    budget = RetryBudget(share=0.5, reserve=2)
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    budget.deposit()
    assert not budget.withdraw()
    budget.deposit()
    assert budget.withdraw()


@pytest.mark.parametrize(("share", "reserve"), [(-0.1, 1.0), (0.1, -1.0)])
def test_a_negative_budget_is_refused(share: float, reserve: float) -> None:
    with pytest.raises(ValueError, match="negative"):
        RetryBudget(share=share, reserve=reserve)


def test_an_unused_retry_is_refunded_up_to_the_reserve() -> None:
    budget = RetryBudget(share=0.5, reserve=1)
    assert budget.withdraw()
    budget.give_back()
    budget.give_back()
    assert budget.balance == 1
