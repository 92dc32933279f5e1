"""What a run's own report, and its error, teach of the models and the way that answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from orchestration.errors import BackendFailed, ContextTooLong, InvalidGuide, OrchestraError
from orchestration.trust.checks import checks_in
from orchestration.trust.observation import VoterAnswer

_VOTES = ("ensemble", "debate")
"""Parts of a report that hold a vote of different models."""
MAX_ANSWERS = 32

Flip = Literal["taken", "refused"]


def answers_in(report: Mapping[str, Any], model: str) -> tuple[VoterAnswer, ...]:
    """The answers of a run's vote; where it held none, that of the `model` which wrote the answer."""
    for title in _VOTES:
        part = report.get(title)
        voices = part.get("voices") if isinstance(part, Mapping) else None
        if isinstance(voices, Sequence) and not isinstance(voices, str):
            found = [_answer(voice) for voice in voices[:MAX_ANSWERS]]
            answers = tuple(answer for answer in found if answer is not None)
            if answers:
                return answers
    return (VoterAnswer(model=model, group=0),) if model else ()


def verdicts_in(report: Mapping[str, Any]) -> dict[str, float]:
    """What judges said of the answer, by their model: MAESTRO's critic gives 1 to 10 for all or for each
    criterion, here 0 to 1."""
    maestro = report.get("maestro")
    verdicts = maestro.get("verdicts") if isinstance(maestro, Mapping) else None
    if not isinstance(verdicts, list):
        return {}
    kept = [said for said in verdicts if isinstance(said, Mapping) and said.get("accepted", True)]
    if not kept:
        return {}
    last = kept[-1]
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
    """What became of a debate whose later rounds had another leader than the first, independent one: it was
    taken for the answer, or refused; None where the lead did not change."""
    debate = report.get("debate")
    if not isinstance(debate, Mapping):
        return None
    return "taken" if debate.get("flipped") else "refused" if debate.get("first_round_stands") else None


def verified_in(report: Mapping[str, Any]) -> float | None:
    """Whether a check that cannot err passed the answer, from 0 to 1; None where there was none: the
    question's own examples, which the program of a vote or of the code agent passes or does not."""
    for title in ("ensemble", "self-consistency", "debate"):
        part = report.get(title)
        passed = part.get("examples_passed") if isinstance(part, Mapping) else None
        if isinstance(passed, int | float):
            return float(passed >= 1)
    tested = [each.quality for each in checks_in(report) if each.is_of_answer]
    return tested[-1] if tested else None


def is_observation(error: OrchestraError) -> bool:
    """Whether an error says something of the way to answer, and not of machines or of the caller."""
    return isinstance(error, BackendFailed | InvalidGuide | ContextTooLong)


def _answer(voice: Any) -> VoterAnswer | None:
    """None for a voice that did not answer."""
    if not isinstance(voice, Mapping) or not voice.get("answer") or not voice.get("model"):
        return None
    try:
        return VoterAnswer.model_validate(
            {"model": voice["model"], "group": voice.get("group"), "followed": voice.get("followed", False)}
        )
    except ValidationError:  # a plug-in may have put anything there
        return None
