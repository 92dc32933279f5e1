"""How much the word of each model is worth at one kind of question.

A model that is right with a probability of p has the weight log(p / (1 - p)), which is how much its vote
changes the odds of an answer where voters err independently (Nitzan and Paroush, International Economic
Review 23, 1982). They do not: wrong answers are alike more often than chance has it, yet less often than
right ones, so that every vote adds `AGREEMENT_BONUS` beside. Where nobody says which answer was right, the
votes themselves tell, weighted by what is known of the voters so far: Dawid and Skene's model (Applied
Statistics 28, 1979), a vote at a time."""

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
"""What a vote counts beside the log-odds of its voter. Of panels of GSM8K, MMLU-Pro and MATH, 0.5 to 0.9 did
best; without it many weak voters who agree are not heard, with 1.2 they outvote one who knows."""
MIN_BEST_WEIGHT = 1.0
"""What the vote of the best of a panel counts at least: where questions are so hard that all are wrong more
often than not, every vote is worth more, rather than none anything."""
MIN_WEIGHT, MAX_WEIGHT = 0.05, 4.0
"""Bounds of a weight: no voter speaks against its own answer, and none decides alone for ever."""
NONE_RIGHT_WEIGHT = 1.0
"""What speaks for no answer being right, in the same unit as weights."""
COPY_SHARE, FAMILY_SHARE = 0.25, 0.75
"""What a further vote for the same answer counts, where one of the same model, or of the same family, is for
it already: their errors are alike."""
COPY_AGREEMENT, PAIR_PRIOR, PAIR_STRENGTH = 0.75, 0.5, 2.0
"""Two models answer as one where they agree surely so often in votes in which not all do: ten such votes
suffice. Of models of GSM8K, MMLU-Pro and MATH no two reach more than 0.67, and one that answers as another
does in four of five reaches 0.78."""

PRIOR_STRENGTH = 8.0
"""Observations that what is thought of a model beforehand counts as."""
OTHER_KINDS_WEIGHT, MAX_OTHER_KINDS = 0.3, 12.0
"""What observations at other kinds of question count beside that, and at most."""
SOURCE_WEIGHTS: dict[Source, float] = {"user": 1.0, "test": 1.0, "judge": 0.5, "vote": 0.3}
MAX_VOTE_COUNTS = 60.0
"""What agreement among models counts at most, so that words of users soon say more."""
JUDGE_PRIOR, JUDGE_STRENGTH = 0.65, 10.0
"""The share of a judge's words that are thought to be right beforehand, and how surely."""
VOTE_VS_BEST_PRIOR = 1.0
"""Votes against their most trusted voter that are thought to have been right, and wrong, beforehand."""
PREFERENCE_Z = 1.0
"""Standard errors by which that voter has to be ahead of the votes."""
MIN_VOTERS = 3
"""Models whose votes teach something of each other: of two that differ, nobody knows who is right."""
MIN_PROVEN = 10.0
"""Observations from which a record says what a voter will do."""


def default_prior(model: str) -> float:
    """What is thought of a model of which nothing is known."""
    return 0.6


@dataclass(frozen=True)
class Trust:
    """`models` are counts of each by who said so, `other_kinds` those of other kinds of question;
    `vote_vs_best` counts votes against their most trusted voter, `pairs` how often two models agreed: see
    `pair_key`, and `judges` how often a judge said what users said. `prior` says what is thought of a model
    beforehand.

    `agreement` is what a vote counts beside the log-odds of its voter. `learns` says whether what a vote
    teaches is kept, and `audit` has it heard whole, whatever is known: some are, so that records stay
    true."""

    models: Mapping[str, Mapping[Source, Counts]] = field(default_factory=dict)
    other_kinds: Mapping[str, Counts] = field(default_factory=dict)
    vote_vs_best: Counts = field(default_factory=Counts)
    prior: Callable[[str], float] = default_prior
    agreement: float = AGREEMENT_BONUS
    learns: bool = False
    audit: bool = False
    pairs: Mapping[str, Counts] = field(default_factory=dict)
    kind: str = ""
    """Of question, for people."""
    judges: Mapping[str, Counts] = field(default_factory=dict)

    def misjudges(self, model: str) -> bool:
        """Whether users disagreed with its words as a judge more often than not."""
        return self.judges.get(model, Counts()).share(JUDGE_PRIOR, JUDGE_STRENGTH).mean < 0.5

    def accuracy(self, model: str) -> ShareEstimate:
        """How often it is right, with the interval in which that lies."""
        if model not in self._known:
            self._known[model] = self._share(model)
        return self._known[model]

    @cached_property
    def _known(self) -> dict[str, ShareEstimate]:
        """What was computed before: a vote asks for it many times."""
        return {}

    def _share(self, model: str) -> ShareEstimate:
        return self.belief(model).share(0.0, 0.0)

    def belief(self, model: str) -> Counts:
        """All that is known of it, as observations: the parameters of the Beta distribution of how often it
        is right."""
        seen = sum_counts(self.models.get(model, {}))
        return self._thought(model).plus(seen.right, seen.wrong)

    def _thought(self, model: str) -> Counts:
        """What is thought of it before this kind of question."""
        prior = self.prior(model)
        thought = Counts(right=PRIOR_STRENGTH * prior, wrong=PRIOR_STRENGTH * (1 - prior))
        others = self.other_kinds.get(model, Counts()).scaled(OTHER_KINDS_WEIGHT)
        if others.total:
            others = others.scaled(min(1.0, MAX_OTHER_KINDS / others.total))
        return thought.plus(others.right, others.wrong)

    def among(self, models: Iterable[str]) -> Trust:
        """The trust in a panel of these models."""
        best = max((_log_odds(self.accuracy(model).mean) for model in models), default=0.0)
        return replace(self, agreement=max(AGREEMENT_BONUS, MIN_BEST_WEIGHT - best))

    def weight(self, model: str) -> float:
        """What its vote counts."""
        return min(MAX_WEIGHT, max(MIN_WEIGHT, _log_odds(self.accuracy(model).mean) + self.agreement))

    def best(self, models: Sequence[str]) -> str | None:
        """The most trusted of them, the first by name of equals; None of none."""
        return min(models, key=lambda name: (-self.weight(name), name), default=None)

    def is_proven(self, model: str) -> bool:
        """Whether it was seen often enough, at this kind of question, to tell what it will do."""
        return sum(counts.total for counts in self.models.get(model, {}).values()) >= MIN_PROVEN

    @cached_property
    def prefers_best(self) -> bool:
        """Whether the most trusted voter was right more often than the vote where the two differed, and not
        by chance alone."""
        vote, best = (
            VOTE_VS_BEST_PRIOR + self.vote_vs_best.right,
            VOTE_VS_BEST_PRIOR + self.vote_vs_best.wrong,
        )
        return best - vote > PREFERENCE_Z * sqrt(best + vote)

    def needs_audit(self, models: Sequence[str]) -> bool:
        """Whether a vote of these models is to be heard whole: each of a few, and all until their records say
        something."""
        return self.learns and (self.audit or not all(map(self.is_proven, models)))

    def group_weight(self, models: Sequence[str]) -> float:
        """What the votes of `models` for one answer count together."""
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
        """Whether two names stand for one model, by what they say or by how they answer."""
        if base_name(one) == base_name(other):
            return True
        pair = pair_key(one, other)
        if pair not in self._copies:
            agreed = self.pairs.get(pair, Counts()).share(PAIR_PRIOR, PAIR_STRENGTH)
            self._copies[pair] = agreed.low >= COPY_AGREEMENT
        return self._copies[pair]

    @cached_property
    def _copies(self) -> dict[str, bool]:
        """What was computed before."""
        return {}

    def distinct(self, models: Sequence[str]) -> list[list[str]]:
        """The names of each model among `models`, copies together."""
        found: list[list[str]] = []
        for name in dict.fromkeys(models):
            same = next((names for names in found if self.are_copies(name, names[0])), None)
            if same is None:
                found.append([name])
            else:
                same.append(name)
        return found

    def posterior(self, groups: Mapping[int, Sequence[str]]) -> dict[int, float]:
        """The probability that the answer of each group of models is the right one; what is missing to 1 is
        that none is."""
        scores = {group: self.group_weight(models) for group, models in groups.items()}
        top = max([NONE_RIGHT_WEIGHT, *scores.values()])
        odds = {group: exp(score - top) for group, score in scores.items()}
        whole = sum(odds.values()) + exp(NONE_RIGHT_WEIGHT - top)
        return {group: each / whole for group, each in odds.items()}

    def credits(
        self, answers: Sequence[VoterAnswer], quality: float | None
    ) -> dict[str, tuple[float, float]]:
        """How far each model was right and wrong, by what is known of the answer of the run: `quality` from 0
        to 1, or None. Agreeing voters share it, and who dissented from a wrong answer gains as likely as its
        own is the right one. What cannot be read was wrong."""
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
        """How far the vote, and how far its most trusted voter was right where the two differ; nothing where
        they do not."""
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
        """The probability that each group's answer is right, where that of group 0 was said to be so with
        `quality`."""
        right = self.posterior(groups)
        if quality is None:
            return right
        left = 1 - right.get(0, 0.0)
        share = (1 - quality) / left if left > 1e-9 else 0.0
        return {group: quality if group == 0 else share * chance for group, chance in right.items()}


def pair_key(one: str, other: str) -> str:
    """The name of two models together, in whatever order."""
    return "\n".join(sorted((one, other)))


def agreements(answers: Sequence[VoterAnswer]) -> dict[str, float]:
    """Of each two models of a vote, 1 where they agreed and 0 where not. Nothing where all agreed: that says
    as little of two copies as of two that are right."""
    said = {answer.model: answer.group for answer in answers if answer.group is not None}
    if len(set(said.values())) < 2:
        return {}
    return {pair_key(one, other): float(said[one] == said[other]) for one, other in combinations(said, 2)}


def sum_counts(sources: Mapping[Source, Counts]) -> Counts:
    """The counts of one model, those of each source by what its word is worth."""
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
