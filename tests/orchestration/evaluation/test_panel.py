"""The figures of a panel, from readings and reports that are written out here."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.evaluation.panel import (
    ReplayedQuestion,
    VoteReportRow,
    early_stop_figures,
    half_shares,
    log_odds,
    majority,
    reading_figures,
    same_answer,
    token_figures,
)


def voice(number: int, model: str, **said: Any) -> dict[str, Any]:
    return {"voice": number, "model": model, "weight": 1.0, "tokens": 10} | said


def report(*voices: dict[str, Any], dissent: tuple[tuple[int, ...], ...] = (), **said: Any) -> VoteReportRow:
    full = {"kind": "number", "voices": voices, "dissent": [{"voices": each} for each in dissent]}
    found = VoteReportRow.from_report({"budget": {}, "ensemble": full | {"tokens_saved": 0} | said})
    assert found is not None
    return found


def asked(
    answer: str | None, gold: str, vote: VoteReportRow | None = None, **said: str | None
) -> ReplayedQuestion:
    return ReplayedQuestion(
        question="q",
        gold=gold,
        answer=answer,
        readings=said,
        shares={model: float(each == gold) for model, each in said.items()},
        full=dict.fromkeys(said, 10),
        written=dict.fromkeys(said, 8),
        reported=20,
        vote=vote,
    )


def test_a_tie_goes_to_the_member_that_is_first_by_name_and_silence_does_not_vote() -> None:
    assert majority({"b": "2", "a": "1", "c": None}) == "1"
    assert majority({"b": "2", "a": "1", "c": "2"}) == "2"
    assert majority({"b": "2", "a": "1", "c": "2"}, {"a": 3.0}) == "1"
    assert majority({"a": None}) is None


@pytest.mark.parametrize(
    ("read", "scored", "same"),
    [
        ("1.6875", "1.688", True),
        ("-16/21", "-0.762", True),
        ("99076.92", "99076.9", True),
        ("2.5", "2", False),
        ("3.0", "3", True),
        ("C", "C", True),
        ("C", "B", False),
        ("1/0", "1", False),
    ],
)
def test_a_scorer_may_round_what_it_reads(read: str, scored: str, same: bool) -> None:
    assert same_answer(read, scored) is same


def test_a_part_holds_the_pattern_beside_its_best_member_the_majority_and_the_oracle() -> None:
    before = [asked("1", "1", a="1", b="2", c="2")] * 9
    now = [asked("1", "1", a="1", b="2", c="2"), asked("2", "1", a="1", b="2", c="3")]
    found = half_shares("second", now, before)
    assert found.pattern.mean == 0.5
    assert (found.best, found.members["a"].mean, found.members["b"].mean) == ("a", 1.0, 0.0)
    assert (found.majority.mean, found.oracle.mean) == (0.5, 1.0)
    assert (found.against_best.wins, found.against_best.losses) == (0, 1)
    assert found.against_majority.interval.mean == 0
    assert half_shares("all", [asked("2", "1", a="1", b="1")]).lost_to_majority == ["q"]
    assert log_odds(before)["a"] == pytest.approx(2.303, abs=0.001)
    assert found.weighted is not None
    assert found.weighted.mean == 1.0


def test_a_vote_that_ended_early_is_held_against_the_whole_vote_by_its_own_weights() -> None:
    """a and b ended it; c, which was stopped, weighs more than both."""
    early = report(
        voice(1, "a", agrees=True),
        voice(2, "b", agrees=True),
        voice(3, "c", weight=2.5, stopped=True, tokens=4),
        stopped_early=True,
        calls_cut=1,
        tokens_saved=9,
    )
    found = early_stop_figures(
        [asked("1", "2", early, a="1", b="1", c="2"), asked("2", "2", None, a="2", b="2", c="2")]
    )
    assert (found.votes, found.stopped, found.right, found.full_right, found.changed) == (1, 1, 0, 1, 1)
    spent = token_figures([asked("1", "2", early, a="1", b="1", c="2")])
    assert (spent.full, spent.written, spent.reported) == (30, 24, 20)
    assert spent.unwritten_share == pytest.approx(0.2)
    assert (spent.saved, spent.saved_reported, spent.saved_error) == (6, 9, 0.5)


def test_samples_of_one_model_are_the_members_of_its_vote() -> None:
    vote = report(voice(1, "a", agrees=True), voice(2, "a", stopped=True), stopped_early=True, calls_cut=1)
    each = ReplayedQuestion(
        question="q",
        gold="1",
        answer="1",
        readings={"a #0001": "1", "a #0002": "1", "a #0003": None},
        shares={"a": 0.5},
        full={"a": 20},
        written={"a": 15},
        vote=vote,
    )
    found = half_shares("all", [each])
    assert (found.early_stops.right, found.early_stops.full_right) == (1, 1)
    assert (found.best, found.majority.mean, found.tokens.saved) == ("a", 1.0, 5)
    assert not found.readings.pairs


def test_pairs_and_voters_that_were_read_wrong_are_counted_and_shown() -> None:
    """a and b are equal but called different; c is not counted; d is different but called equal to a."""
    vote = report(
        voice(1, "a", agrees=True),
        voice(2, "b"),
        voice(3, "c"),
        voice(4, "d", agrees=True),
        voice(5, "e", stopped=True),
        dissent=((2,),),
    )
    found = reading_figures([asked("1", "1", vote, a="1", b="1", c="1", d="2", e="1")])
    assert (found.counted, found.not_counted, found.not_counted_share) == (3, 1, 0.25)
    assert found.equal_called_different == 1.0
    assert found.different_called_equal == 0.5
    assert [each["what"] for each in found.examples] == [
        "not counted",
        "equal called different",
        "different called equal",
    ]


def test_a_run_without_a_vote_has_no_figures_of_one() -> None:
    assert VoteReportRow.from_report({"single": {"model": "a"}, "budget": {"tokens": {"used": 1}}}) is None
    nothing = [asked("1", "1", None, a="1", b="2")]
    assert early_stop_figures(nothing).votes == 0
    assert reading_figures(nothing).equal_called_different is None
    assert token_figures(nothing).saved_error is None
