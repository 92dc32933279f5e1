"""Extracts observations of models and arms from the report of a run, and from its error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from orchestration.errors import BackendFailed, ContextTooLong, InvalidGuide, OrchestraError
from orchestration.trust.checks import checks_in
from orchestration.trust.observation import VoterAnswer

_VOTES = ("ensemble", "debate")
"""Report sections that hold a vote of different models."""
MAX_ANSWERS = 32

Flip = Literal["taken", "refused"]


def answers_in(report: Mapping[str, Any], model: str) -> tuple[VoterAnswer, ...]:
    """Return the answers of the vote of a run; without a vote, one answer of the `model` that wrote it."""
    for title in _VOTES:
        part = report.get(title)
        voters = part.get("voices") if isinstance(part, Mapping) else None
        if isinstance(voters, Sequence) and not isinstance(voters, str):
            found = [_answer(voter) for voter in voters[:MAX_ANSWERS]]
            answers = tuple(answer for answer in found if answer is not None)
            if answers:
                return answers
    return (VoterAnswer(model=model, group=0),) if model else ()


def verdicts_in(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the verdicts of judges on the answer by judge model, from 0 to 1. The critic of MAESTRO gives 1
    to 10, overall or for each criterion."""
    maestro = report.get("maestro")
    verdicts = maestro.get("verdicts") if isinstance(maestro, Mapping) else None
    if not isinstance(verdicts, list):
        return {}
    accepted = [
        verdict for verdict in verdicts if isinstance(verdict, Mapping) and verdict.get("accepted", True)
    ]
    if not accepted:
        return {}
    last = accepted[-1]
    score = last.get("score")
    scores = last.get("scores")
    if isinstance(scores, Mapping) and scores:
        numbers = [each for each in scores.values() if isinstance(each, int | float)]
        score = sum(numbers) / len(numbers) if numbers else None
    if not isinstance(score, int | float):
        return {}
    judge = last.get("model")
    if not isinstance(judge, str) or not judge:
        return {}
    return {judge: min(1.0, max(0.0, (score - 1) / 9))}


def flip_in(report: Mapping[str, Any]) -> Flip | None:
    """Return whether a debate took or refused the new leader of a later round; None if the leader of the
    first, independent round stayed."""
    debate = report.get("debate")
    if not isinstance(debate, Mapping):
        return None
    return "taken" if debate.get("flipped") else "refused" if debate.get("first_round_stands") else None


def verified_in(report: Mapping[str, Any]) -> float | None:
    """Return whether the answer passed a check that cannot be wrong (1) or not (0): the examples in the
    question, which a program is run on. None if there was no check."""
    for title in ("ensemble", "self-consistency", "debate"):
        part = report.get(title)
        passed = part.get("examples_passed") if isinstance(part, Mapping) else None
        if isinstance(passed, int | float):
            return float(passed >= 1)
    tested = [each.quality for each in checks_in(report) if each.is_of_answer]
    return tested[-1] if tested else None


def is_observation(error: OrchestraError) -> bool:
    """Whether an error is caused by the arm, not by machines or by the caller."""
    return isinstance(error, BackendFailed | InvalidGuide | ContextTooLong)


def _answer(voter: Any) -> VoterAnswer | None:
    """Return None for a voter that did not answer."""
    if not isinstance(voter, Mapping) or not voter.get("answer") or not voter.get("model"):
        return None
    try:
        return VoterAnswer.model_validate(
            {"model": voter["model"], "group": voter.get("group"), "followed": voter.get("followed", False)}
        )
    except ValidationError:  # a plug-in may report anything
        return None
