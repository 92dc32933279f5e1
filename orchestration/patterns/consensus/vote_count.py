"""The count of a vote: who agrees with whom, who leads, and how surely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestration.patterns.consensus.answer_kind import AnswerKind
from orchestration.patterns.consensus.similarity import Matrix, clusters, medoid


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What one voice answered. `key` is None where it is no answer to this question, or free text.
    `pass_rate` is the share of the question's examples that it passes, where that was tried."""

    voter: int
    text: str
    weight: float = 1.0
    key: str | None = None
    pass_rate: float | None = None


@dataclass(frozen=True, slots=True)
class AnswerGroup:
    """Voices that gave the same answer. `representative` is the voice whose text stands for it, `pass_rate`
    that of its ballots, and `key` what they have in common; None of free texts."""

    voters: tuple[int, ...]
    weight: float
    representative: int
    pass_rate: float | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class VoteCount:
    """Parties with the leader first: more merit, then more weight, of free texts what is most like all
    others, then the voice that is named first. `invalid` voices answered, but not the question."""

    kind: AnswerKind
    groups: tuple[AnswerGroup, ...]
    invalid: tuple[int, ...] = ()

    @property
    def leader(self) -> AnswerGroup | None:
        return self.groups[0] if self.groups else None

    @property
    def agreement(self) -> float:
        """The leader's share of the votes cast."""
        cast = sum(group.weight for group in self.groups)
        return self.groups[0].weight / cast if cast else 0.0

    def led_by(self, voter: int) -> VoteCount:
        """The same with the group of that voice in the lead, whatever it weighs; as it is where the voice has
        none."""
        first = next((group for group in self.groups if voter in group.voters), None)
        if first is None:
            return self
        return replace(self, groups=(first, *(group for group in self.groups if group is not first)))


def weights_added(votes: Sequence[Vote]) -> float:
    return sum(vote.weight for vote in votes)


def count_votes(
    kind: AnswerKind,
    votes: Sequence[Vote],
    invalid: Sequence[int],
    alike: Matrix,
    threshold: float,
    together: Callable[[Sequence[Vote]], float] = weights_added,
) -> VoteCount:
    """`alike` says how alike each two of `votes` are, in their order; free texts that are at least
    `threshold` alike are one answer. `together` says what votes for one answer weigh together. The order in
    which ballots came does not matter."""
    if kind is AnswerKind.TEXT:
        groups = clusters(alike, threshold)
    else:
        by_key: dict[str | None, list[int]] = {}
        for at, vote in enumerate(votes):
            by_key.setdefault(vote.key, []).append(at)
        groups = list(by_key.values())
    weights = [vote.weight for vote in votes]
    ranked: list[tuple[float, float, float, int, AnswerGroup]] = []
    for members in groups:
        best = medoid(members, alike, weights) if kind is AnswerKind.TEXT else _most_trusted(members, votes)
        weight = round(together([votes[at] for at in members]), 9)
        central = round(float(alike[best] @ np.asarray(weights)), 9) if kind is AnswerKind.TEXT else 0.0
        voters, pass_rate = tuple(votes[at].voter for at in members), votes[best].pass_rate
        group = AnswerGroup(voters, weight, votes[best].voter, pass_rate, votes[best].key)
        ranked.append((-(pass_rate or 0.0), -weight, -central, min(voters), group))
    ranked.sort(key=lambda each: each[:4])
    return VoteCount(kind, tuple(group for *_, group in ranked), tuple(invalid))


def _most_trusted(members: Sequence[int], votes: Sequence[Vote]) -> int:
    """The ballot whose voice has the most weight, which speaks for its group; the first named of equals."""
    return min(members, key=lambda at: (-(votes[at].pass_rate or 0.0), -votes[at].weight, votes[at].voter))
