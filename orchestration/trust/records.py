"""What is known of how models and ways to answer did at one kind of question."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from orchestration.trust.caller_counts import CallerRating, latest, rating_of
from orchestration.trust.counts import KEEP, Counts
from orchestration.trust.families import family_of
from orchestration.trust.observation import Observation, Source
from orchestration.trust.trust import JUDGE_PRIOR, JUDGE_STRENGTH, Trust, agreements, sum_counts

COST_RUNS = 50
"""Runs over which the cost of an arm is averaged."""
MOST_ARMS, MOST_MODELS, MOST_JUDGES, MOST_PAIRS = 64, 256, 64, 512
"""Of each kept; those of which nothing was heard for longest go."""
ARM_WEIGHTS: dict[Source, float] = {"user": 3.0, "test": 3.0, "judge": 0.5, "vote": 0.0}
"""What a word on the answer of an arm counts: a user knows best, and a judge is a model itself."""

_DEPTHS = {"company": 1, "models": 3}
"""Of what is left out where it cannot be read, by field; 2 of others, an entry."""
_Words = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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
    `company` counts the votes whose answer was not that of the most trusted voter: right where the vote was,
    wrong where that voter was, and `pairs` how often two models agreed, of votes in which
    not all did. `judges` counts how often a judge said what a user said, and `callers` the
    words of each user that count: see `orchestration.trust.caller_counts`. Fields that a later version added
    are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    arms: dict[str, Counts] = {}
    costs: dict[str, Cost] = {}
    models: dict[str, dict[Source, Counts]] = {}
    company: Counts = Counts()
    pairs: dict[str, Counts] = {}
    judges: dict[str, Counts] = {}
    callers: dict[str, _Words] = {}

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

    def after(self, seen: Observation, trust: Trust) -> KindRecord:
        """With what a run taught. `trust` is what was known before it, of which this record is a part."""
        heard = self._heard(seen)
        trust = trust.among({answer.model for answer in seen.answers})
        changed = {
            "arms": self._arms_after(seen, heard),
            "costs": self._costs_after(seen),
            "models": self._models_after(seen, trust, heard),
            "company": self._company_after(seen, trust, heard),
            "pairs": self._pairs_after(seen),
            "judges": self._judges_after(seen, heard),
            "callers": heard.callers,
        }
        return self.model_copy(update=changed)

    def reliability(self, judge: str) -> float:
        """The share of a judge's words that users agreed with."""
        return self.judges.get(judge, Counts()).share(JUDGE_PRIOR, JUDGE_STRENGTH).mean

    def _heard(self, seen: Observation) -> CallerRating:
        """What the observation counts, and what it leaves of earlier ones."""
        if seen.source == "user":
            word = rating_of(seen.caller, self.callers, again=seen.instead_of is not None)
            return replace(word, weight=seen.weight * word.weight)
        weight = seen.weight
        if seen.source == "judge":
            weight *= max(0.0, 2 * self.reliability(seen.judge) - 1)
        return CallerRating(weight, KEEP ** min(1.0, weight), self.callers)

    def _arms_after(self, seen: Observation, heard: CallerRating) -> dict[str, Counts]:
        if seen.arm is None or seen.quality is None or seen.arm.count("/") > 1 or _judges_its_own(seen):
            return self.arms  # of a model that answers alone `models` says how good it is
        weight = heard.weight * ARM_WEIGHTS[seen.source]
        arms = {name: counts.plus(0, 0, heard.keep) for name, counts in self.arms.items()}
        arm = arms.pop(seen.arm, Counts())
        if seen.instead_of is not None:
            arms[seen.arm] = arm.shifted(weight * (seen.quality - seen.instead_of))
        else:
            arms[seen.arm] = arm.plus(weight * seen.quality, weight * (1 - seen.quality))
        return latest(arms, MOST_ARMS)

    def _costs_after(self, seen: Observation) -> dict[str, Cost]:
        if seen.arm is None or seen.tokens is None:
            return self.costs
        costs = dict(self.costs)
        costs[seen.arm] = costs.pop(seen.arm, Cost()).plus(seen.tokens, seen.seconds)
        return latest(costs, MOST_ARMS)

    def _models_after(
        self, seen: Observation, trust: Trust, heard: CallerRating
    ) -> dict[str, dict[Source, Counts]]:
        credits = trust.credits(seen.answers, seen.quality)
        before = trust.credits(seen.answers, seen.instead_of) if seen.instead_of is not None else {}
        models = dict(self.models)
        for name, (right, wrong) in credits.items():
            if seen.source == "judge" and family_of(seen.judge) == family_of(name):
                continue  # a judge prefers its own
            sources = models.pop(name, {})
            counts = sources.get(seen.source, Counts())
            if name in before:
                counts = counts.shifted(heard.weight * (right - before[name][0]))
            else:
                counts = counts.plus(heard.weight * right, heard.weight * wrong, heard.keep)
            models[name] = sources | {seen.source: counts}
        return latest(models, MOST_MODELS)

    def _company_after(self, seen: Observation, trust: Trust, heard: CallerRating) -> Counts:
        if seen.source not in ("user", "test") or seen.quality is None:
            return self.company
        vote, best = trust.company_credits(seen.answers, seen.quality)
        if seen.instead_of is not None:
            before = trust.company_credits(seen.answers, seen.instead_of)
            return self.company.shifted(heard.weight * (vote - before[0] - best + before[1]) / 2)
        keep = heard.keep if vote or best else 1.0
        return self.company.plus(heard.weight * vote, heard.weight * best, keep)

    def _pairs_after(self, seen: Observation) -> dict[str, Counts]:
        """Once of each vote, whoever judges it too."""
        if seen.source not in ("vote", "test"):
            return self.pairs
        pairs = dict(self.pairs)
        for pair, agreed in agreements(seen.answers).items():
            pairs[pair] = pairs.pop(pair, Counts()).plus(agreed, 1 - agreed, KEEP)
        return latest(pairs, MOST_PAIRS)

    def _judges_after(self, seen: Observation, heard: CallerRating) -> dict[str, Counts]:
        """A user says of a judge as well whether it judged right."""
        if seen.source != "user" or seen.quality is None or not seen.verdicts:
            return self.judges
        judges = dict(self.judges)
        for judge, verdict in seen.verdicts.items():
            right = _alike(verdict, seen.quality)
            counts = judges.pop(judge, Counts())
            if seen.instead_of is not None:
                before = _alike(verdict, seen.instead_of)
                judges[judge] = counts.shifted(heard.weight * (right - before))
            else:
                new = heard.weight * right, heard.weight * (1 - right)
                judges[judge] = counts.plus(*new, heard.keep)
        return latest(judges, MOST_JUDGES)


def _alike(verdict: float, quality: float) -> float:
    return 1 - abs(verdict - quality)


def _judges_its_own(seen: Observation) -> bool:
    """Whether a judge judges an answer that models of its own family alone gave."""
    families = {family_of(answer.model) for answer in seen.answers if answer.group == 0}
    return seen.source == "judge" and families == {family_of(seen.judge)}


def _leave_out(data: Any, where: tuple[int | str, ...]) -> None:
    """What is at `where` in a record, or the entry that holds it."""
    path = where[: _DEPTHS.get(str(where[0]), 2)] if where else ()
    for step in path[:-1]:
        data = data.get(step) if isinstance(data, dict) else None
    if path and isinstance(data, dict):
        data.pop(path[-1], None)
