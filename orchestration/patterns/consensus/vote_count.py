"""The count of a vote: who agrees with whom, who leads, and how surely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestration.patterns.consensus.answer_kind import AnswerKind
from orchestration.patterns.consensus.similarity import Matrix, clusters, medoid


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What one voice answered. `key` is None where it is no answer to this question, or free text. `merit` is
    the share of the question's examples that it passes, where that was tried."""

    voice: int
    text: str
    weight: float = 1.0
    key: str | None = None
    merit: float | None = None


@dataclass(frozen=True, slots=True)
class AnswerGroup:
    """Voices that gave the same answer. `spokesman` is the voice whose text stands for it, `merit` that of
    its ballots, and `key` what they have in common; None of free texts."""

    voices: tuple[int, ...]
    weight: float
    spokesman: int
    merit: float | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class VoteCount:
    """Parties with the leader first: more merit, then more weight, of free texts what is most like all
    others, then the voice that is named first. `spoiled` voices answered, but not the question."""

    kind: AnswerKind
    parties: tuple[AnswerGroup, ...]
    spoiled: tuple[int, ...] = ()

    @property
    def leader(self) -> AnswerGroup | None:
        return self.parties[0] if self.parties else None

    @property
    def agreement(self) -> float:
        """The leader's share of the votes cast."""
        cast = sum(party.weight for party in self.parties)
        return self.parties[0].weight / cast if cast else 0.0

    def led_by(self, voice: int) -> VoteCount:
        """The same with the group of that voice in the lead, whatever it weighs; as it is where the voice has
        none."""
        first = next((party for party in self.parties if voice in party.voices), None)
        if first is None:
            return self
        return replace(self, parties=(first, *(party for party in self.parties if party is not first)))


def weights_added(ballots: Sequence[Vote]) -> float:
    return sum(ballot.weight for ballot in ballots)


def count_votes(
    kind: AnswerKind,
    ballots: Sequence[Vote],
    spoiled: Sequence[int],
    alike: Matrix,
    threshold: float,
    together: Callable[[Sequence[Vote]], float] = weights_added,
) -> VoteCount:
    """`alike` says how alike each two of `ballots` are, in their order; free texts that are at least
    `threshold` alike are one answer. `together` says what votes for one answer weigh together. The order in
    which ballots came does not matter."""
    if kind is AnswerKind.TEXT:
        groups = clusters(alike, threshold)
    else:
        by_key: dict[str | None, list[int]] = {}
        for at, ballot in enumerate(ballots):
            by_key.setdefault(ballot.key, []).append(at)
        groups = list(by_key.values())
    weights = [ballot.weight for ballot in ballots]
    ranked: list[tuple[float, float, float, int, AnswerGroup]] = []
    for group in groups:
        best = medoid(group, alike, weights) if kind is AnswerKind.TEXT else _most_trusted(group, ballots)
        weight = round(together([ballots[at] for at in group]), 9)
        central = round(float(alike[best] @ np.asarray(weights)), 9) if kind is AnswerKind.TEXT else 0.0
        voices, merit = tuple(ballots[at].voice for at in group), ballots[best].merit
        party = AnswerGroup(voices, weight, ballots[best].voice, merit, ballots[best].key)
        ranked.append((-(merit or 0.0), -weight, -central, min(voices), party))
    ranked.sort(key=lambda each: each[:4])
    return VoteCount(kind, tuple(party for *_, party in ranked), tuple(spoiled))


def _most_trusted(group: Sequence[int], ballots: Sequence[Vote]) -> int:
    """The ballot whose voice has the most weight, which speaks for its group; the first named of equals."""
    return min(group, key=lambda at: (-(ballots[at].merit or 0.0), -ballots[at].weight, ballots[at].voice))
