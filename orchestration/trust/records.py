"""What is known of how models and ways to answer did at one kind of question."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

from orchestration.trust.counts import KEEP, Counts
from orchestration.trust.families import family_of
from orchestration.trust.observation import Observation, Source
from orchestration.trust.trust import JUDGE_PRIOR, JUDGE_STRENGTH, Trust, summed

COST_RUNS = 50
"""Runs over which the cost of an arm is averaged."""
MOST_ARMS, MOST_MODELS, MOST_CALLERS, MOST_JUDGES = 64, 256, 64, 64
CALLER_WORDS = 50.0
"""Words of one caller that count whole, beside as many as all others gave: a thousand words of one weigh no
more than those of a few."""
ARM_WEIGHTS: dict[Source, float] = {"user": 3.0, "test": 3.0, "judge": 0.5, "vote": 0.0}
"""What a word on the answer of an arm counts: a user knows best, and a judge is a model itself."""

_Value = TypeVar("_Value")


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


class KindRecord(BaseModel):
    """Of one kind of question. `models` are counts of each by who said so; `company` counts the votes whose
    answer was not that of the most trusted voter: right where the vote was, wrong where that voter was.
    `judges` counts how often a judge said what a user said, and `callers` the words of each user."""

    model_config = ConfigDict(frozen=True)

    arms: dict[str, Counts] = {}
    costs: dict[str, Cost] = {}
    models: dict[str, dict[Source, Counts]] = {}
    company: Counts = Counts()
    judges: dict[str, Counts] = {}
    callers: dict[str, float] = {}

    def arm(self, name: str) -> Counts:
        return self.arms.get(name, Counts())

    def counts(self) -> dict[str, Counts]:
        """Of each model, whoever said so."""
        return {name: summed(sources) for name, sources in self.models.items()}

    def after(self, seen: Observation, trust: Trust) -> KindRecord:
        """With what a run taught. `trust` is what was known before it, of which this record is a part."""
        weight, callers = self._heard(seen)
        changed = {
            "arms": self._arms_after(seen, weight),
            "costs": self._costs_after(seen),
            "models": self._models_after(seen, trust, weight),
            "company": self._company_after(seen, trust, weight),
            "judges": self._judges_after(seen),
            "callers": callers,
        }
        return self.model_copy(update=changed)

    def reliability(self, judge: str) -> float:
        """The share of a judge's words that users agreed with."""
        return self.judges.get(judge, Counts()).share(JUDGE_PRIOR, JUDGE_STRENGTH).mean

    def _heard(self, seen: Observation) -> tuple[float, dict[str, float]]:
        """What the word counts, and the words of each caller with this one."""
        if seen.source == "judge":
            return seen.weight * max(0.0, 2 * self.reliability(seen.judge) - 1), self.callers
        if seen.source != "user":
            return seen.weight, self.callers
        callers = {name: KEEP * words for name, words in self.callers.items()}
        if seen.instead_of is None:
            callers[seen.caller] = callers.get(seen.caller, 0.0) + 1
        own = callers.get(seen.caller, 1.0)
        others = sum(callers.values()) - own
        kept = _largest(callers, MOST_CALLERS, lambda words: words)
        return seen.weight * min(1.0, (CALLER_WORDS + others) / max(own, 1.0)), kept

    def _arms_after(self, seen: Observation, weight: float) -> dict[str, Counts]:
        if seen.arm is None or seen.quality is None:
            return self.arms
        weight *= ARM_WEIGHTS[seen.source]
        arms = {name: counts.plus(0, 0, KEEP) for name, counts in self.arms.items()}
        right, wrong = _parts(seen.quality, weight)
        if seen.instead_of is not None:
            before = _parts(seen.instead_of, weight)
            right, wrong = right - before[0], wrong - before[1]
        arms[seen.arm] = arms.get(seen.arm, Counts()).plus(right, wrong)
        return _largest(arms, MOST_ARMS, lambda counts: counts.total)

    def _costs_after(self, seen: Observation) -> dict[str, Cost]:
        if seen.arm is None or seen.tokens is None:
            return self.costs
        costs = self.costs | {seen.arm: self.costs.get(seen.arm, Cost()).plus(seen.tokens, seen.seconds)}
        return _largest(costs, MOST_ARMS, lambda cost: float(cost.runs))

    def _models_after(
        self, seen: Observation, trust: Trust, weight: float
    ) -> dict[str, dict[Source, Counts]]:
        credits = trust.credits(seen.answers, seen.quality)
        before = trust.credits(seen.answers, seen.instead_of) if seen.instead_of is not None else {}
        models = dict(self.models)
        for name, (right, wrong) in credits.items():
            if seen.source == "judge" and family_of(seen.judge) == family_of(name):
                continue  # a judge prefers its own
            gone = before.get(name, (0.0, 0.0))
            counts = models.get(name, {}).get(seen.source, Counts())
            new = counts.plus(weight * (right - gone[0]), weight * (wrong - gone[1]), KEEP)
            models[name] = models.get(name, {}) | {seen.source: new}
        return _largest(models, MOST_MODELS, lambda each: sum(counts.total for counts in each.values()))

    def _company_after(self, seen: Observation, trust: Trust, weight: float) -> Counts:
        if seen.source not in ("user", "test") or seen.quality is None or seen.instead_of is not None:
            return self.company
        vote, best = trust.company_credits(seen.answers, seen.quality)
        return self.company.plus(weight * vote, weight * best, KEEP if vote or best else 1.0)

    def _judges_after(self, seen: Observation) -> dict[str, Counts]:
        """A user says of a judge as well whether it judged right."""
        if seen.source != "user" or seen.quality is None or not seen.verdicts:
            return self.judges
        judges = dict(self.judges)
        for judge, verdict in seen.verdicts.items():
            right = 1 - abs(verdict - seen.quality)
            judges[judge] = judges.get(judge, Counts()).plus(right, 1 - right, KEEP)
        return _largest(judges, MOST_JUDGES, lambda counts: counts.total)


def _parts(quality: float, weight: float) -> tuple[float, float]:
    return weight * quality, weight * (1 - quality)


def _largest(values: dict[str, _Value], most: int, size: Callable[[_Value], float]) -> dict[str, _Value]:
    """Not more than `most` of them, those with the least going first."""
    if len(values) <= most:
        return values
    kept = sorted(values, key=lambda name: -size(values[name]))[:most]
    return {name: values[name] for name in kept}
