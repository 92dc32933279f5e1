"""What is known of how models and ways to answer did at one kind of question."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from orchestration.trust.caller_counts import CallerRating, latest, rating_of
from orchestration.trust.counts import DISCOUNT, Counts
from orchestration.trust.families import family_of
from orchestration.trust.observation import Observation, Source
from orchestration.trust.trust import JUDGE_PRIOR, JUDGE_STRENGTH, Trust, agreements, sum_counts

COST_RUNS = 50
"""Runs over which the cost of an arm is averaged."""
MAX_ARMS, MAX_MODELS, MAX_JUDGES, MAX_PAIRS = 64, 256, 64, 512
"""Of each kept; those of which nothing was heard for longest go."""
ARM_WEIGHTS: dict[Source, float] = {"user": 3.0, "test": 3.0, "judge": 0.5, "vote": 0.0}
"""What a word on the answer of an arm counts: a user knows best, and a judge is a model itself."""

_DEPTHS = {"vote_vs_best": 1, "models": 3}
"""Of what is left out where it cannot be read, by field; 2 of others, an entry."""
_Ratings = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Cost(BaseModel):
    """The average run: tokens and seconds."""

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
    """Of one kind of question. `arms` and `costs` are of ways to answer, named PROFILE/PATTERN; a model that
    answers alone, PROFILE/PATTERN/MODEL, has costs only. `models` are counts of each by who said so;
    `vote_vs_best` counts the votes whose answer was not that of the most trusted voter: right where the vote
    was, wrong where that voter was, and `pairs` how often two models agreed, of votes in which
    not all did. `judges` counts how often a judge said what a user said, and `callers` the
    words of each user that count: see `orchestration.trust.caller_counts`. Fields that a later version added
    are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    arms: dict[str, Counts] = {}
    costs: dict[str, Cost] = {}
    models: dict[str, dict[Source, Counts]] = {}
    vote_vs_best: Counts = Counts()
    pairs: dict[str, Counts] = {}
    judges: dict[str, Counts] = {}
    callers: dict[str, _Ratings] = {}

    @classmethod
    def read(cls, value: bytes) -> KindRecord:
        """A record as any version wrote it; entries that this one cannot read are left out. Raises
        `ValueError` for what is no record."""
        data = from_json(value)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            for wrong in error.errors(include_url=False, include_input=False):
                _leave_out(data, wrong["loc"])
            return cls.model_validate(data)

    def arm(self, name: str) -> Counts:
        return self.arms.get(name, Counts())

    def counts(self) -> dict[str, Counts]:
        """Of each model, whoever said so."""
        return {name: sum_counts(sources) for name, sources in self.models.items()}

    def after(self, observation: Observation, trust: Trust) -> KindRecord:
        """With what a run taught. `trust` is what was known before it, of which this record is a part."""
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

    def reliability(self, judge: str) -> float:
        """The share of a judge's words that users agreed with."""
        return self.judges.get(judge, Counts()).share(JUDGE_PRIOR, JUDGE_STRENGTH).mean

    def _rating(self, observation: Observation) -> CallerRating:
        """What the observation counts, and what it leaves of earlier ones."""
        if observation.source == "user":
            word = rating_of(observation.caller, self.callers, again=observation.previous_quality is not None)
            return replace(word, weight=observation.weight * word.weight)
        weight = observation.weight
        if observation.source == "judge":
            weight *= max(0.0, 2 * self.reliability(observation.judge) - 1)
        return CallerRating(weight, DISCOUNT ** min(1.0, weight), self.callers)

    def _arms_after(self, observation: Observation, rating: CallerRating) -> dict[str, Counts]:
        if (
            observation.arm is None
            or observation.quality is None
            or observation.arm.count("/") > 1
            or _judges_its_own(observation)
        ):
            return self.arms  # of a model that answers alone `models` says how good it is
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
                continue  # a judge prefers its own
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
        """Once of each vote, whoever judges it too."""
        if observation.source not in ("vote", "test"):
            return self.pairs
        pairs = dict(self.pairs)
        for pair, agreed in agreements(observation.answers).items():
            pairs[pair] = pairs.pop(pair, Counts()).plus(agreed, 1 - agreed, DISCOUNT)
        return latest(pairs, MAX_PAIRS)

    def _judges_after(self, observation: Observation, rating: CallerRating) -> dict[str, Counts]:
        """A user says of a judge as well whether it judged right."""
        if observation.source != "user" or observation.quality is None or not observation.verdicts:
            return self.judges
        judges = dict(self.judges)
        for judge, verdict in observation.verdicts.items():
            right = _alike(verdict, observation.quality)
            counts = judges.pop(judge, Counts())
            if observation.previous_quality is not None:
                before = _alike(verdict, observation.previous_quality)
                judges[judge] = counts.shifted(rating.weight * (right - before))
            else:
                new = rating.weight * right, rating.weight * (1 - right)
                judges[judge] = counts.plus(*new, rating.discount)
        return latest(judges, MAX_JUDGES)


def _alike(verdict: float, quality: float) -> float:
    return 1 - abs(verdict - quality)


def _judges_its_own(observation: Observation) -> bool:
    """Whether a judge judges an answer that models of its own family alone gave."""
    families = {family_of(answer.model) for answer in observation.answers if answer.group == 0}
    return observation.source == "judge" and families == {family_of(observation.judge)}


def _leave_out(data: Any, where: tuple[int | str, ...]) -> None:
    """What is at `where` in a record, or the entry that holds it."""
    path = where[: _DEPTHS.get(str(where[0]), 2)] if where else ()
    for step in path[:-1]:
        data = data.get(step) if isinstance(data, dict) else None
    if path and isinstance(data, dict):
        data.pop(path[-1], None)
