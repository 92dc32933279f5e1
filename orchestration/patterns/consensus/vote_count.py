"""Counts a vote: which answers agree, and which leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestration.patterns.consensus.answer_kind import AnswerKind
from orchestration.patterns.consensus.similarity import Matrix, clusters, medoid


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The vote of one voter. `key` is None for free text, and for an answer that is not valid for the
    question. `pass_rate` is the share of the question's examples that a program passes, where it was
    tested."""

    voter: int
    text: str
    weight: float = 1.0
    key: str | None = None
    pass_rate: float | None = None


@dataclass(frozen=True, slots=True)
class AnswerGroup:
    """Voters that gave the same answer. `representative` is the voter whose text stands for it, `pass_rate`
    that of its vote, and `key` the common key; None for free texts."""

    voters: tuple[int, ...]
    weight: float
    representative: int
    pass_rate: float | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class VoteCount:
    """Groups with the leader first: by pass rate, then by weight, free texts by their similarity to all
    others, then by the lowest voter number. `invalid` voters answered, but not the question."""

    kind: AnswerKind
    groups: tuple[AnswerGroup, ...]
    invalid: tuple[int, ...] = ()

    @property
    def leader(self) -> AnswerGroup | None:
        return self.groups[0] if self.groups else None

    @property
    def agreement(self) -> float:
        """The leader's share of the weight of all valid votes."""
        cast = sum(group.weight for group in self.groups)
        return self.groups[0].weight / cast if cast else 0.0

    def led_by(self, voter: int) -> VoteCount:
        """The same count with the group of this voter in the lead; unchanged where the voter is in no
        group."""
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
    """Count `votes`; their order does not matter. `alike` holds the similarity of each pair of votes; free
    texts with at least `threshold` are one answer. `together` gives the joint weight of votes for one
    answer."""
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
    """The vote with the highest pass rate, then the highest weight, then the lowest voter number."""
    return min(members, key=lambda at: (-(votes[at].pass_rate or 0.0), -votes[at].weight, votes[at].voter))
