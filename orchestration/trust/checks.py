"""What checks that cannot err say of what models wrote in the steps of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestration.messages import GuidedDecoding
from orchestration.query_analysis.features import Kind
from orchestration.trust.form import meets_form
from orchestration.trust.observation import Observation, VoterAnswer

MAX_CHECKS = 32
"""Checks of each sort that one run teaches."""
WRONG_SUM_WEIGHT, RIGHT_SUMS_WEIGHT, FORM_MET_WEIGHT = 0.5, 0.1, 0.05
"""What these count beside a user's word on a whole answer: a sum that is wrong spoils it mostly, while right
sums and a form that is met say little of the rest. A program that fails, and a form that is not met, count
whole."""
ANSWER_STEP = "answer"
"""The step of the patterns `code` and `reasoning` whose text is the run's answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """That `model` was right in `step`, from 0 to 1, at a question of `kind`."""

    step: str
    model: str
    kind: Kind
    quality: float
    weight: float = 1.0

    @property
    def is_of_answer(self) -> bool:
        """Whether it tried the program that is the run's answer."""
        return self.step == ANSWER_STEP and self.kind == "code"

    @property
    def observation(self) -> Observation:
        own = VoterAnswer(model=self.model, group=0)
        return Observation(source="test", quality=self.quality, weight=self.weight, answers=(own,))


def checks_in(report: Mapping[str, Any]) -> list[Check]:
    """By the calculator, the parser and the question's own examples. A program that parses and was not tried
    teaches nothing."""
    found: list[Check] = []
    for said in _entries(report, "code"):
        examples, passed = said.get("examples"), said.get("passed")
        is_tried = isinstance(examples, int) and examples > 0
        if is_tried or said.get("parses") is False:
            quality = float(is_tried and passed == examples)
            found.append(Check(step=said["step"], model=said["model"], kind="code", quality=quality))
    for said in _entries(report, "sums"):
        quality, weight = (0.0, WRONG_SUM_WEIGHT) if said.get("wrong") else (1.0, RIGHT_SUMS_WEIGHT)
        step, model = said["step"], said["model"]
        found.append(Check(step=step, model=model, kind="reasoning", quality=quality, weight=weight))
    return found


def check_of_form(text: str, model: str, guide: GuidedDecoding | None, kind: Kind) -> Check | None:
    """Of the answer of one model, where its caller asked for a form; None where that says nothing."""
    met = meets_form(text, guide) if model else None
    if met is None:
        return None
    return Check(
        step=ANSWER_STEP, model=model, kind=kind, quality=float(met), weight=FORM_MET_WEIGHT if met else 1.0
    )


def _entries(report: Mapping[str, Any], title: str) -> list[Mapping[str, Any]]:
    """Of a part of the report, those that name their step and model: a plug-in may have put anything
    there."""
    part = report.get(title)
    return [
        said
        for said in (part[:MAX_CHECKS] if isinstance(part, list) else [])
        if isinstance(said, Mapping)
        and isinstance(said.get("step"), str)
        and isinstance(said.get("model"), str)
        and said["model"]
    ]
