"""Records of how models and arms (ways to answer) did at one kind of question."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from orchestration.trust.caller_counts import CallerRating, latest, rating_of
from orchestration.trust.counts import DISCOUNT, Counts
from orchestration.trust.families import family_of
from orchestration.trust.observation import Observation, Source
from orchestration.trust.trust import Trust, agreements, judge_reliability, sum_counts

COST_RUNS = 50
"""About how many of the latest runs the average cost of an arm covers."""
MAX_ARMS, MAX_MODELS, MAX_JUDGES, MAX_PAIRS = 64, 256, 64, 512
"""Entries that are stored of each; the least recently updated go first."""
ARM_WEIGHTS: dict[Source, float] = {"user": 3.0, "test": 3.0, "judge": 0.5, "vote": 0.0}
"""The weight of a judgement on the answer of an arm, by source. A judge is a model itself, so it counts less
than a user."""

_DEPTHS = {"vote_vs_best": 1, "models": 3}
"""How deep the entry lies, by field, that is dropped if it cannot be read; 2 for fields that are not
listed."""
_Ratings = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Cost(BaseModel):
    """The average tokens and seconds of a run."""

    model_config = ConfigDict(frozen=True)

    runs: int = Field(default=0, ge=0)
    tokens: float = Field(default=0, ge=0, allow_inf_nan=False)
    seconds: float = Field(default=0, ge=0, allow_inf_nan=False)

    def plus(self, tokens: float, seconds: float) -> Cost:
        share = 1 / min(self.runs + 1, COST_RUNS)
        return Cost(
            runs=self.runs + 1,
            tokens=self.tokens + share * (tokens - self.tokens),
            seconds=self.seconds + share * (seconds - self.seconds),
        )


class KindRecord(BaseModel):
    """The record of one kind of question. Fields of later versions are preserved."""

    model_config = ConfigDict(frozen=True, extra="allow")

    arms: dict[str, Counts] = {}
    """Good and bad answers of arms PROFILE/PATTERN."""
    costs: dict[str, Cost] = {}
    """Costs of arms PROFILE/PATTERN, and of models that answer alone as PROFILE/PATTERN/MODEL."""
    models: dict[str, dict[Source, Counts]] = {}
    """Right and wrong answers of each model, by source of the judgement."""
    vote_vs_best: Counts = Counts()
    """Votes whose answer differed from that of the most trusted voter: right if the vote was right, wrong if
    that voter was."""
    pairs: dict[str, Counts] = {}
    """How often two models agreed, in votes in which not all did; keys are made by `pair_key`."""
    judges: dict[str, Counts] = {}
    """How often the verdicts of a judge matched user ratings."""
    callers: dict[str, _Ratings] = {}
    """The ratings of each user that count; see `orchestration.trust.caller_counts`."""

    @classmethod
    def read(cls, value: bytes) -> KindRecord:
        """Read a record of any version; entries that this version cannot read are dropped. Raises
        `ValueError` if the value is not a record."""
        data = from_json(value)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            for wrong in error.errors(include_url=False, include_input=False):
                _drop(data, wrong["loc"])
            return cls.model_validate(data)

    def arm(self, name: str) -> Counts:
        return self.arms.get(name, Counts())

    def counts(self) -> dict[str, Counts]:
        """Return the weighted counts of each model over all sources."""
        return {name: sum_counts(sources) for name, sources in self.models.items()}

    def after(self, observation: Observation, trust: Trust) -> KindRecord:
        """Return the record with an observation added. `trust` is the trust before it, which includes this
        record."""
        rating = self._rating(observation)
        trust = trust.among({answer.model for answer in observation.answers})
        changed = {
            "arms": self._arms_after(observation, rating),
            "costs": self._costs_after(observation),
            "models": self._models_after(observation, trust, rating),
            "vote_vs_best": self._vote_vs_best_after(observation, trust, rating),
            "pairs": self._pairs_after(observation),
            "judges": self._judges_after(observation, rating),
            "callers": rating.callers,
        }
        return self.model_copy(update=changed)

    def _rating(self, observation: Observation) -> CallerRating:
        """Return what the observation counts, and how much it discounts earlier ones."""
        if observation.source == "user":
            user = rating_of(
                observation.caller, self.callers, is_update=observation.previous_quality is not None
            )
            return replace(user, weight=observation.weight * user.weight)
        weight = observation.weight
        if observation.source == "judge":
            weight *= max(0.0, 2 * judge_reliability(self.judges, observation.judge).mean - 1)
        return CallerRating(weight, DISCOUNT ** min(1.0, weight), self.callers)

    def _arms_after(self, observation: Observation, rating: CallerRating) -> dict[str, Counts]:
        if (
            observation.arm is None
            or observation.quality is None
            or observation.arm.count("/") > 1
            or _is_own_family_judged(observation)
        ):
            return self.arms  # `models` holds the counts of models that answer alone
        weight = rating.weight * ARM_WEIGHTS[observation.source]
        arms = {name: counts.plus(0, 0, rating.discount) for name, counts in self.arms.items()}
        arm = arms.pop(observation.arm, Counts())
        if observation.previous_quality is not None:
            arms[observation.arm] = arm.shifted(weight * (observation.quality - observation.previous_quality))
        else:
            arms[observation.arm] = arm.plus(weight * observation.quality, weight * (1 - observation.quality))
        return latest(arms, MAX_ARMS)

    def _costs_after(self, observation: Observation) -> dict[str, Cost]:
        if observation.arm is None or observation.tokens is None:
            return self.costs
        costs = dict(self.costs)
        costs[observation.arm] = costs.pop(observation.arm, Cost()).plus(
            observation.tokens, observation.seconds
        )
        return latest(costs, MAX_ARMS)

    def _models_after(
        self, observation: Observation, trust: Trust, rating: CallerRating
    ) -> dict[str, dict[Source, Counts]]:
        credits = trust.credits(observation.answers, observation.quality)
        before = (
            trust.credits(observation.answers, observation.previous_quality)
            if observation.previous_quality is not None
            else {}
        )
        models = dict(self.models)
        for name, (right, wrong) in credits.items():
            if observation.source == "judge" and family_of(observation.judge) == family_of(name):
                continue  # a judge favours its own family
            sources = models.pop(name, {})
            counts = sources.get(observation.source, Counts())
            if name in before:
                counts = counts.shifted(rating.weight * (right - before[name][0]))
            else:
                counts = counts.plus(rating.weight * right, rating.weight * wrong, rating.discount)
            models[name] = sources | {observation.source: counts}
        return latest(models, MAX_MODELS)

    def _vote_vs_best_after(self, observation: Observation, trust: Trust, rating: CallerRating) -> Counts:
        if observation.source not in ("user", "test") or observation.quality is None:
            return self.vote_vs_best
        vote, best = trust.vote_vs_best_credits(observation.answers, observation.quality)
        if observation.previous_quality is not None:
            before = trust.vote_vs_best_credits(observation.answers, observation.previous_quality)
            return self.vote_vs_best.shifted(rating.weight * (vote - before[0] - best + before[1]) / 2)
        discount = rating.discount if vote or best else 1.0
        return self.vote_vs_best.plus(rating.weight * vote, rating.weight * best, discount)

    def _pairs_after(self, observation: Observation) -> dict[str, Counts]:
        """Count each vote once, even if it is judged too."""
        if observation.source not in ("vote", "test"):
            return self.pairs
        pairs = dict(self.pairs)
        for pair, agreed in agreements(observation.answers).items():
            pairs[pair] = pairs.pop(pair, Counts()).plus(agreed, 1 - agreed, DISCOUNT)
        return latest(pairs, MAX_PAIRS)

    def _judges_after(self, observation: Observation, rating: CallerRating) -> dict[str, Counts]:
        """A user rating also shows whether the judges were right."""
        if observation.source != "user" or observation.quality is None or not observation.verdicts:
            return self.judges
        judges = dict(self.judges)
        for judge, verdict in observation.verdicts.items():
            right = _match(verdict, observation.quality)
            counts = judges.pop(judge, Counts())
            if observation.previous_quality is not None:
                before = _match(verdict, observation.previous_quality)
                judges[judge] = counts.shifted(rating.weight * (right - before))
            else:
                new = rating.weight * right, rating.weight * (1 - right)
                judges[judge] = counts.plus(*new, rating.discount)
        return latest(judges, MAX_JUDGES)


def _match(verdict: float, quality: float) -> float:
    return 1 - abs(verdict - quality)


def _is_own_family_judged(observation: Observation) -> bool:
    """Whether all models that gave the answer are of the judge's own family."""
    families = {family_of(answer.model) for answer in observation.answers if answer.group == 0}
    return observation.source == "judge" and families == {family_of(observation.judge)}


def _drop(data: Any, where: tuple[int | str, ...]) -> None:
    """Remove from a record the entry that holds the value at `where`."""
    path = where[: _DEPTHS.get(str(where[0]), 2)] if where else ()
    for step in path[:-1]:
        data = data.get(step) if isinstance(data, dict) else None
    if path and isinstance(data, dict):
        data.pop(path[-1], None)
