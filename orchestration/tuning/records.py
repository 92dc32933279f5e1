"""What is known of how arms and models did at one kind of question. Old judgements fade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from orchestration.errors import BackendFailed, ContextTooLong, InvalidGuide, OrchestraError

KEEP = 0.995
"""Of all earlier judgements, at each new one: about the latest 200 count, so that a model that was replaced
is judged anew (discounted Thompson sampling, Raj and Kalyani 2017, arXiv:1707.09727)."""
COST_RUNS = 50
"""Runs over which the cost of an arm is averaged."""
MOST_ARMS, MOST_MODELS = 64, 256
FEEDBACK_WEIGHT, CRITIC_WEIGHT = 3.0, 0.5
"""Of a judgement: a user knows best, and a critic is a model itself."""


class Tally(BaseModel):
    """Judgements, in halves where they were half good."""

    model_config = ConfigDict(frozen=True)

    good: float = Field(default=0, ge=0)
    bad: float = Field(default=0, ge=0)

    @property
    def weight(self) -> float:
        return self.good + self.bad

    def plus(self, good: float, bad: float, keep: float = 1.0) -> Tally:
        return Tally(good=max(0.0, keep * self.good + good), bad=max(0.0, keep * self.bad + bad))


class Cost(BaseModel):
    """The average run: tokens and seconds."""

    model_config = ConfigDict(frozen=True)

    runs: int = Field(default=0, ge=0)
    tokens: float = Field(default=0, ge=0)
    seconds: float = Field(default=0, ge=0)

    def plus(self, tokens: float, seconds: float) -> Cost:
        share = 1 / min(self.runs + 1, COST_RUNS)
        return Cost(
            runs=self.runs + 1,
            tokens=self.tokens + share * (tokens - self.tokens),
            seconds=self.seconds + share * (seconds - self.seconds),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one run teaches. `arm` is None for a run that `auto` did not choose. `quality` goes from 0 to 1,
    counts `weight` times, and is None where nobody judged. `models` are good and bad judgements of each.

    `instead_of` is an earlier judgement of the same run, which counts no more."""

    arm: str | None = None
    quality: float | None = None
    weight: float = 1.0
    tokens: float | None = None
    seconds: float = 0.0
    models: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    instead_of: Judged | None = None


class Record(BaseModel):
    """Of one kind of question."""

    model_config = ConfigDict(frozen=True)

    arms: dict[str, Tally] = {}
    costs: dict[str, Cost] = {}
    models: dict[str, Tally] = {}

    def tally(self, arm: str) -> Tally:
        return self.arms.get(arm, Tally())

    def after(self, judged: Judged) -> Record:
        """With what a run taught. The order in which runs come changes next to nothing."""
        arms, costs, models = dict(self.arms), dict(self.costs), dict(self.models)
        if judged.instead_of is not None:
            _add(arms, models, judged.instead_of, -1.0, keep=1.0)
        _add(arms, models, judged, 1.0, keep=KEEP if judged.quality is not None else 1.0)
        if judged.arm is not None and judged.tokens is not None:
            costs[judged.arm] = costs.get(judged.arm, Cost()).plus(judged.tokens, judged.seconds)
        return Record(arms=_largest(arms, MOST_ARMS), costs=costs, models=_largest(models, MOST_MODELS))


def _add(
    arms: dict[str, Tally], models: dict[str, Tally], judged: Judged, sign: float, *, keep: float
) -> None:
    for name, (good, bad) in judged.models.items():
        models[name] = models.get(name, Tally()).plus(sign * good, sign * bad, KEEP if sign > 0 else 1.0)
    if judged.arm is None or judged.quality is None:
        return
    for name, tally in arms.items():
        arms[name] = tally.plus(0, 0, keep)
    good, bad = judged.quality * judged.weight, (1 - judged.quality) * judged.weight
    arms[judged.arm] = arms.get(judged.arm, Tally()).plus(sign * good, sign * bad)


def _largest(tallies: dict[str, Tally], most: int) -> dict[str, Tally]:
    if len(tallies) <= most:
        return tallies
    kept = sorted(tallies, key=lambda name: -tallies[name].weight)[:most]
    return {name: tallies[name] for name in kept}


MODEL_PRIOR = 4.0
"""Good and bad judgements each, that a model is thought to have had before the first one."""
LEAST_WEIGHT, MOST_WEIGHT = 0.5, 2.0


def weights(record: Record) -> dict[str, float]:
    """How much each model's vote counts at this kind of question: the odds that it is right, after a Beta
    prior that says even, between 0.5 and 2. A model without a record counts 1."""
    return {
        name: min(MOST_WEIGHT, max(LEAST_WEIGHT, (MODEL_PRIOR + tally.good) / (MODEL_PRIOR + tally.bad)))
        for name, tally in record.models.items()
    }


def judged_by_itself(arm: str | None, report: Mapping[str, Any], *, tokens: float, seconds: float) -> Judged:
    """What a run's own report teaches: the critic's verdict, who agreed with whom, and the cost."""
    score = critic_score(report)
    return Judged(
        arm=arm,
        quality=score,
        weight=CRITIC_WEIGHT,
        tokens=tokens,
        seconds=seconds,
        models=_agreements(report),
    )


def judged_by_failure(arm: str, error: OrchestraError) -> Judged | None:
    """What an error teaches of the way to answer: nothing, where it was of machines or of the caller."""
    if not isinstance(error, BackendFailed | InvalidGuide | ContextTooLong):
        return None
    return Judged(arm=arm, quality=0.0)


def judged_by_user(arm: str | None, score: float, models: tuple[str, ...]) -> Judged:
    """What a user's `score` from -1 to 1 teaches: of the way to answer, and of the models that did."""
    quality = (score + 1) / 2
    share = 1 / max(1, len(models))
    return Judged(
        arm=arm,
        quality=quality,
        weight=FEEDBACK_WEIGHT,
        models=dict.fromkeys(models, (quality * share, (1 - quality) * share)),
    )


def critic_score(report: Mapping[str, Any]) -> float | None:
    """The last verdict of MAESTRO's critic, who gives 1 to 10 for all or for each criterion, as 0 to 1; None
    where there was none."""
    maestro = report.get("maestro")
    verdicts = maestro.get("verdicts") if isinstance(maestro, Mapping) else None
    if not isinstance(verdicts, list) or not verdicts or not isinstance(verdicts[-1], Mapping):
        return None
    score = verdicts[-1].get("score")
    scores = verdicts[-1].get("scores")
    if isinstance(scores, Mapping) and scores:
        numbers = [each for each in scores.values() if isinstance(each, int | float)]
        score = sum(numbers) / len(numbers) if numbers else None
    return min(1.0, max(0.0, (score - 1) / 9)) if isinstance(score, int | float) else None


def _agreements(report: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Of an ensemble's voices, where more than one model spoke: that a model agrees with itself says
    nothing."""
    ensemble = report.get("ensemble")
    voices = ensemble.get("voices") if isinstance(ensemble, Mapping) else None
    if not isinstance(voices, list):
        return {}
    found: dict[str, tuple[float, float]] = {}
    for voice in voices:
        if isinstance(voice, Mapping) and isinstance(voice.get("model"), str) and voice.get("answer"):
            good, bad = found.get(voice["model"], (0.0, 0.0))
            found[voice["model"]] = (good + 1, bad) if voice.get("agrees") else (good, bad + 1)
    return found if len(found) > 1 else {}
