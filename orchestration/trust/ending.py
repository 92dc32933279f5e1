"""When a vote among models is decided: those that are still out would not turn it, or hardly.

What each of them will answer follows from what is known of it: where the leading answer is right it gives
that one as often as it is right at all; where it errs, its error is one that others made as well about every
third time (`SAME_ERROR`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.trust.trust import Trust

SAME_ERROR = 0.35
"""The share of errors that two models make alike. Of wrong answers of two models at GSM8K, MMLU-Pro and MATH,
0.13 to 0.41 were the same."""
GRID = 0.05
"""Leads are told apart to this."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """The probability that the leader of a vote leads when all have voted. It is `proven` where the records
    of all that it depends on say so, or where no vote that is out can change it."""

    probability: float
    proven: bool


def outlook(trust: Trust, groups: Sequence[Sequence[str]], out: Sequence[str]) -> Outlook:
    """Of a vote in which the models of `groups` agree, the leading group first, and those of `out` are to
    vote yet. A tie counts as a loss."""
    if not groups:
        return Outlook(0.0, proven=True)
    if not out:
        return Outlook(1.0, proven=True)
    scores = [trust.together(group) for group in groups]
    lead = scores[0] - max(scores[1:], default=0.0)
    weights = [trust.weight(model) for model in out]
    if lead > sum(weights) + 1e-9:
        return Outlook(1.0, proven=True)
    proven = all(trust.is_proven(model) for model in (*groups[0], *out))
    if lead < 0:  # of the most trusted voter, whom the record prefers
        return Outlook(1.0 if trust.prefers_best else 0.0, proven)
    right = trust.posterior(dict(enumerate(groups)))
    leader, rival = right[0], max((right[at] for at in range(1, len(groups))), default=0.0)
    neither = max(0.0, 1 - leader - rival)
    if len(groups) == 1:  # what the others may agree on has not been said yet
        rival, neither = neither, 0.0
    ahead = 0.0
    for chance, for_leader, for_rival in (
        (leader, 1.0, SAME_ERROR),
        (rival, SAME_ERROR, 1.0),
        (neither, SAME_ERROR / 2, SAME_ERROR / 2),
    ):
        if chance > 0:
            ahead += chance * _ahead(lead, weights, _votes(trust, out, for_leader, for_rival))
    return Outlook(min(1.0, ahead), proven)


def _votes(
    trust: Trust, out: Sequence[str], for_leader: float, for_rival: float
) -> list[tuple[float, float]]:
    """With what probability each votes for the leader and for its rival. A share of 1 stands for the right
    answer, another one for an error."""
    found = []
    for model in out:
        right = trust.accuracy(model).mean
        found.append(
            tuple(right if share == 1.0 else (1 - right) * share for share in (for_leader, for_rival))
        )
    return [(leader, rival) for leader, rival in found]


def _ahead(lead: float, weights: Sequence[float], votes: Sequence[tuple[float, float]]) -> float:
    """The probability that the lead stays above 0."""
    leads = {round(lead / GRID): 1.0}
    for weight, (for_leader, for_rival) in zip(weights, votes, strict=True):
        step = round(weight / GRID)
        after: dict[int, float] = {}
        for at, chance in leads.items():
            for move, share in ((step, for_leader), (-step, for_rival), (0, 1 - for_leader - for_rival)):
                after[at + move] = after.get(at + move, 0.0) + chance * share
        leads = after
    return sum(chance for at, chance in leads.items() if at > 0)
