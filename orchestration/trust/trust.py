"""Computes how much the vote of each model counts at one kind of question.

A model that is right with probability p has the weight log(p / (1 - p)), by which its vote changes the odds
of an answer if voters err independently (Nitzan and Paroush, International Economic Review 23, 1982). They do
not: wrong answers agree more often than by chance, but less often than right ones, so each vote adds
`AGREEMENT_BONUS`. If no source says which answer was right, the votes themselves do, weighted by what is
known of the voters so far: Dawid and Skene's model (Applied Statistics 28, 1979), one vote at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from math import exp, log, sqrt

from orchestration.trust.counts import Counts, ShareEstimate
from orchestration.trust.families import base_name, family_of
from orchestration.trust.observation import Source, VoterAnswer

AGREEMENT_BONUS = 0.6
"""What a vote counts beyond the log-odds of its voter. For panels at GSM8K, MMLU-Pro and MATH, 0.5 to 0.9 did
best; with 0 many weak voters who agree have no influence, with 1.2 they outvote one strong voter."""
MIN_BEST_WEIGHT = 1.0
"""Minimum weight of the best voter of a panel. If all voters are mostly wrong, the bonus of every vote is
raised to reach it."""
MIN_WEIGHT, MAX_WEIGHT = 0.05, 4.0
"""Bounds of a weight: no vote counts against its own answer, and no model always decides alone."""
NONE_RIGHT_WEIGHT = 1.0
"""The weight of the hypothesis that no answer is right."""
COPY_SHARE, FAMILY_SHARE = 0.25, 0.75
"""The factor for a further vote for the same answer by a copy of a model, or by a model of its family: their
errors are correlated."""
COPY_AGREEMENT, PAIR_PRIOR, PAIR_STRENGTH = 0.75, 0.5, 2.0
"""Two models count as copies if the lower bound of their agreement, in votes in which not all agree, is at
least 0.75; ten agreeing votes suffice. No two models at GSM8K, MMLU-Pro and MATH reach more than 0.67, and
one that answers as another does in four of five votes reaches 0.78."""

PRIOR_STRENGTH = 8.0
"""How many observations the prior of a model counts as."""
OTHER_KINDS_WEIGHT, MAX_OTHER_KINDS = 0.3, 12.0
"""The weight of an observation at another kind of question, and the maximum weight of all of them."""
SOURCE_WEIGHTS: dict[Source, float] = {"user": 1.0, "test": 1.0, "judge": 0.5, "vote": 0.3}
"""The weight of an observation by source."""
MAX_VOTE_COUNTS = 60.0
"""The maximum total weight of observations from votes, so that user ratings soon outweigh them."""
JUDGE_PRIOR, JUDGE_STRENGTH = 0.65, 10.0
"""The prior share of right verdicts of a judge, and how many observations it counts as."""
VOTE_VS_BEST_PRIOR = 1.0
"""Prior counts of votes against the most trusted voter that were right, and that were wrong."""
PREFERENCE_Z = 1.0
"""Standard errors by which the most trusted voter must be ahead of the votes to be preferred."""
MIN_VOTERS = 3
"""The fewest models whose votes show who is right; of two that differ, either may be."""
MIN_PROVEN = 10.0
"""Observations from which on a record is long enough to predict a voter."""


def default_prior(model: str) -> float:
    """Return the prior of a model of which nothing is known."""
    return 0.6


@dataclass(frozen=True)
class Trust:
    """The records of models at one kind of question, and what follows from them."""

    models: Mapping[str, Mapping[Source, Counts]] = field(default_factory=dict)
    """Right and wrong answers of each model, by source."""
    other_kinds: Mapping[str, Counts] = field(default_factory=dict)
    """Right and wrong answers of each model at other kinds of question."""
    vote_vs_best: Counts = field(default_factory=Counts)
    """Votes that differed from their most trusted voter: right if the vote was right, wrong if the voter
    was."""
    prior: Callable[[str], float] = default_prior
    """Returns the expected share of right answers of a model without a record."""
    agreement: float = AGREEMENT_BONUS
    """What a vote counts beyond the log-odds of its voter."""
    learns: bool = False
    """Whether observations from votes are recorded."""
    audit: bool = False
    """Whether votes run to their end, whatever is known, to keep the records accurate."""
    pairs: Mapping[str, Counts] = field(default_factory=dict)
    """How often two models agreed; keys are made by `pair_key`."""
    kind: str = ""
    """The kind of question, for messages."""
    judges: Mapping[str, Counts] = field(default_factory=dict)
    """How often the verdicts of a judge matched user ratings."""

    def misjudges(self, model: str) -> bool:
        """Whether users mostly disagreed with the verdicts of this judge."""
        return judge_reliability(self.judges, model).mean < 0.5

    def accuracy(self, model: str) -> ShareEstimate:
        """Return how often the model is right, with an interval."""
        if model not in self._accuracies:
            self._accuracies[model] = self._share(model)
        return self._accuracies[model]

    @cached_property
    def _accuracies(self) -> dict[str, ShareEstimate]:
        """Cache of `accuracy`, which a vote calls many times."""
        return {}

    def _share(self, model: str) -> ShareEstimate:
        return self.belief(model).share(0.0, 0.0)

    def belief(self, model: str) -> Counts:
        """Return the parameters of the Beta distribution of how often the model is right."""
        counts = sum_counts(self.models.get(model, {}))
        return self._prior_counts(model).plus(counts.right, counts.wrong)

    def _prior_counts(self, model: str) -> Counts:
        """Return the prior of the model, with its record at other kinds of question."""
        prior = self.prior(model)
        counts = Counts(right=PRIOR_STRENGTH * prior, wrong=PRIOR_STRENGTH * (1 - prior))
        others = self.other_kinds.get(model, Counts()).scaled(OTHER_KINDS_WEIGHT)
        if others.total:
            others = others.scaled(min(1.0, MAX_OTHER_KINDS / others.total))
        return counts.plus(others.right, others.wrong)

    def among(self, models: Iterable[str]) -> Trust:
        """Return the trust for a panel of these models, in which the best has at least `MIN_BEST_WEIGHT`."""
        best = max((_log_odds(self.accuracy(model).mean) for model in models), default=0.0)
        return replace(self, agreement=max(AGREEMENT_BONUS, MIN_BEST_WEIGHT - best))

    def weight(self, model: str) -> float:
        """Return the weight of the model's vote."""
        return min(MAX_WEIGHT, max(MIN_WEIGHT, _log_odds(self.accuracy(model).mean) + self.agreement))

    def best(self, models: Sequence[str]) -> str | None:
        """Return the most trusted model, the first by name among equals; None without models."""
        return min(models, key=lambda name: (-self.weight(name), name), default=None)

    def is_proven(self, model: str) -> bool:
        """Whether the model's record at this kind of question is long enough to predict it."""
        return sum(counts.total for counts in self.models.get(model, {}).values()) >= MIN_PROVEN

    @cached_property
    def prefers_best(self) -> bool:
        """Whether, where the vote and the most trusted voter differed, that voter was right clearly more
        often."""
        vote, best = (
            VOTE_VS_BEST_PRIOR + self.vote_vs_best.right,
            VOTE_VS_BEST_PRIOR + self.vote_vs_best.wrong,
        )
        return best - vote > PREFERENCE_Z * sqrt(best + vote)

    def needs_audit(self, models: Sequence[str]) -> bool:
        """Whether a vote of these models must run to its end: in audits, and until all records are long
        enough."""
        return self.learns and (self.audit or not all(map(self.is_proven, models)))

    def group_weight(self, models: Sequence[str]) -> float:
        """Return the total weight of the votes of `models` for one answer."""
        total = 0.0
        before: list[str] = []
        families: set[str] = set()
        for model in sorted(models, key=lambda name: (-self.weight(name), name)):
            family = family_of(model)
            share = FAMILY_SHARE if family in families else 1.0
            if any(self.are_copies(model, other) for other in before):
                share = COPY_SHARE
            total += share * self.weight(model)
            before.append(model)
            families.add(family)
        return total

    def are_copies(self, one: str, other: str) -> bool:
        """Whether two names mean one model, by the names or because they answer alike."""
        if base_name(one) == base_name(other):
            return True
        pair = pair_key(one, other)
        if pair not in self._copies:
            agreed = self.pairs.get(pair, Counts()).share(PAIR_PRIOR, PAIR_STRENGTH)
            self._copies[pair] = agreed.low >= COPY_AGREEMENT
        return self._copies[pair]

    @cached_property
    def _copies(self) -> dict[str, bool]:
        """Cache of `are_copies`."""
        return {}

    def distinct(self, models: Sequence[str]) -> list[list[str]]:
        """Group the names of `models`, copies of one model together."""
        found: list[list[str]] = []
        for name in dict.fromkeys(models):
            same = next((names for names in found if self.are_copies(name, names[0])), None)
            if same is None:
                found.append([name])
            else:
                same.append(name)
        return found

    def posterior(self, groups: Mapping[int, Sequence[str]]) -> dict[int, float]:
        """Return the probability that the answer of each group is right. The rest to 1 is the probability
        that none is."""
        scores = {group: self.group_weight(models) for group, models in groups.items()}
        top = max([NONE_RIGHT_WEIGHT, *scores.values()])
        odds = {group: exp(score - top) for group, score in scores.items()}
        whole = sum(odds.values()) + exp(NONE_RIGHT_WEIGHT - top)
        return {group: each / whole for group, each in odds.items()}

    def credits(
        self, answers: Sequence[VoterAnswer], quality: float | None
    ) -> dict[str, tuple[float, float]]:
        """Return how far each model was right and wrong. `quality` says how good the answer of the run is,
        from 0 to 1, or None. Voters with the same answer get the same credit. If the answer of the run was
        wrong, the credit goes to the other answers by their probabilities. Unreadable answers count as
        wrong."""
        groups = _groups(answers)
        if quality is None and len(self.distinct([each.model for each in answers])) < MIN_VOTERS:
            return {}
        right = self._right(groups, quality)
        found: dict[str, list[float]] = {}
        for answer in (each for each in answers if not each.followed):
            chance = right.get(answer.group, 0.0) if answer.group is not None else 0.0
            found.setdefault(answer.model, []).append(chance)
        means = {model: sum(chances) / len(chances) for model, chances in found.items()}
        return {model: (mean, 1 - mean) for model, mean in means.items()}

    def vote_vs_best_credits(self, answers: Sequence[VoterAnswer], quality: float) -> tuple[float, float]:
        """Return how far the vote was right, and how far its most trusted voter was, if the two differ; else
        zeros."""
        groups = _groups(answers)
        voters = [each for each in answers if each.group is not None]
        if len(groups) < 2:
            return 0.0, 0.0
        best = max(voters, key=lambda each: self.weight(each.model)).group
        vote = max(groups, key=lambda group: self.group_weight(groups[group]))
        if best == vote or best is None:
            return 0.0, 0.0
        right = self._right(groups, quality)
        return right[vote], right[best]

    def _right(self, groups: Mapping[int, Sequence[str]], quality: float | None) -> dict[int, float]:
        """Return the probability that the answer of each group is right, if `quality` is that of group 0."""
        right = self.posterior(groups)
        if quality is None:
            return right
        others = 1 - right.get(0, 0.0)
        share = (1 - quality) / others if others > 1e-9 else 0.0
        return {group: quality if group == 0 else share * chance for group, chance in right.items()}


def pair_key(one: str, other: str) -> str:
    """Return the key of a pair of models; their order does not matter."""
    return "\n".join(sorted((one, other)))


def agreements(answers: Sequence[VoterAnswer]) -> dict[str, float]:
    """Return 1 for each pair of models that agreed, and 0 for each that did not. If all agreed the result is
    empty, because that is no evidence of copies: they may all be right."""
    groups = {answer.model: answer.group for answer in answers if answer.group is not None}
    if len(set(groups.values())) < 2:
        return {}
    return {
        pair_key(one, other): float(groups[one] == groups[other]) for one, other in combinations(groups, 2)
    }


def judge_reliability(judges: Mapping[str, Counts], judge: str) -> ShareEstimate:
    """Estimate the share of a judge's verdicts that match user ratings."""
    return judges.get(judge, Counts()).share(JUDGE_PRIOR, JUDGE_STRENGTH)


def sum_counts(sources: Mapping[Source, Counts]) -> Counts:
    """Return the weighted sum of the counts of one model over all sources."""
    right = wrong = 0.0
    for source, counts in sources.items():
        weight = SOURCE_WEIGHTS[source]
        if source == "vote" and weight * counts.total > MAX_VOTE_COUNTS:
            weight = MAX_VOTE_COUNTS / counts.total
        right, wrong = right + weight * counts.right, wrong + weight * counts.wrong
    return Counts(right=right, wrong=wrong)


def _log_odds(share: float) -> float:
    share = min(1 - 1e-6, max(1e-6, share))
    return log(share / (1 - share))


def _groups(answers: Sequence[VoterAnswer]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for answer in answers:
        if answer.group is not None:
            groups.setdefault(answer.group, []).append(answer.model)
    return groups
