"""Observations from checks that cannot be wrong: sums, programs and answer forms in the steps of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestration.messages import GuidedDecoding
from orchestration.query_analysis.features import Kind
from orchestration.trust.form import meets_form
from orchestration.trust.observation import Observation, VoterAnswer

MAX_CHECKS = 32
"""Maximum number of checks of each type that one run contributes."""
WRONG_SUM_WEIGHT, RIGHT_SUMS_WEIGHT, FORM_MET_WEIGHT = 0.5, 0.1, 0.05
"""Weights relative to a user rating of the whole answer. A wrong sum spoils most of an answer, while right
sums and a matching form say little about the rest. A failing program and a form that does not match count
fully."""
ANSWER_STEP = "answer"
"""The step of the patterns `code` and `reasoning` whose text is the answer of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of a check: how far `model` was right in one step."""

    step: str
    model: str
    kind: Kind
    """The kind of question at which the model was right or wrong."""
    quality: float
    """From 0 (wrong) to 1 (right)."""
    weight: float = 1.0
    """Relative to a user rating of the whole answer."""

    @property
    def is_of_answer(self) -> bool:
        """Whether the check ran the program that is the answer of the run."""
        return self.step == ANSWER_STEP and self.kind == "code"

    @property
    def observation(self) -> Observation:
        own = VoterAnswer(model=self.model, group=0)
        return Observation(source="test", quality=self.quality, weight=self.weight, answers=(own,))


def checks_in(report: Mapping[str, Any]) -> list[Check]:
    """Return the checks in the report of a run: by the calculator, the parser, and the examples in the
    question. A program that parses and was not run is not counted."""
    checks: list[Check] = []
    for entry in _entries(report, "code"):
        examples, passed = entry.get("examples"), entry.get("passed")
        is_tried = isinstance(examples, int) and examples > 0
        if is_tried or entry.get("parses") is False:
            quality = float(is_tried and passed == examples)
            checks.append(Check(step=entry["step"], model=entry["model"], kind="code", quality=quality))
    for entry in _entries(report, "sums"):
        quality, weight = (0.0, WRONG_SUM_WEIGHT) if entry.get("wrong") else (1.0, RIGHT_SUMS_WEIGHT)
        step, model = entry["step"], entry["model"]
        checks.append(Check(step=step, model=model, kind="reasoning", quality=quality, weight=weight))
    return checks


def check_of_form(text: str, model: str, guide: GuidedDecoding | None, kind: Kind) -> Check | None:
    """Check the form of an answer that one model wrote. None if the caller asked for no form, or for one that
    cannot be checked here."""
    matches = meets_form(text, guide) if model else None
    if matches is None:
        return None
    return Check(
        step=ANSWER_STEP,
        model=model,
        kind=kind,
        quality=float(matches),
        weight=FORM_MET_WEIGHT if matches else 1.0,
    )


def _entries(report: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the entries of a report section that name their step and model; a plug-in may report
    anything."""
    section = report.get(name)
    return [
        entry
        for entry in (section[:MAX_CHECKS] if isinstance(section, list) else [])
        if isinstance(entry, Mapping)
        and isinstance(entry.get("step"), str)
        and isinstance(entry.get("model"), str)
        and entry["model"]
    ]
