from __future__ import annotations

import numpy as np
import pytest

from actors.engine.lookup import PromptLookup


def lookup(prompt: list[int], answer: list[int] | None = None) -> PromptLookup:
    made = PromptLookup(np.array(prompt, np.int64), 1000)
    for token in answer or []:
        made.append(token)
    return made


def test_the_latest_occurrence_of_the_last_three_tokens_is_proposed() -> None:
    prompt = [1, 2, 3, 40, 41, 7, 1, 2, 3, 50, 51, 52, 8]
    assert lookup(prompt, [1, 2, 3]).propose(3) == [50, 51, 52]
    assert lookup(prompt, [1, 2, 3, 40]).propose(2) == [41, 7]


def test_a_proposal_that_reaches_the_end_goes_on_in_a_circle() -> None:
    assert lookup([9], [1, 2, 1, 2, 1]).propose(5) == [2, 1, 2, 1, 2]


@pytest.mark.parametrize("tokens", [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 9, 2, 3]])
def test_nothing_is_proposed_for_what_did_not_occur(tokens: list[int]) -> None:
    assert lookup(tokens).propose(4) == []


def test_no_more_is_proposed_than_asked_for() -> None:
    repeated = lookup([1, 2, 3, 4, 1, 2, 3])
    assert [len(repeated.propose(count)) for count in (-1, 0, 1, 4)] == [0, 0, 1, 4]


def test_proposals_stop_when_they_are_wrong_and_return_when_they_would_be_right() -> None:
    made = lookup([1, 2, 3, 4], [5, 6])

    def proposed(goes_on: int) -> bool:
        """Whether something is proposed after 1, 2, 3, which `goes_on` follows."""
        for token in (1, 2, 3):
            made.append(token)
        told = bool(made.propose(1))
        made.append(goes_on)
        return told

    assert proposed(4)
    changing = [proposed(token) for token in range(100, 120)]
    assert changing[0]
    assert not changing[-1]
    assert changing == sorted(changing, reverse=True)
    steady = [proposed(4) for _ in range(20)]
    assert not steady[0]
    assert steady[-1]
