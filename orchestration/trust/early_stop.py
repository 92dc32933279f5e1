"""When a vote among models is decided: those that are still out would not turn it, or hardly.

What each of them will answer follows from what is known of it: where the leading answer is right it gives
that one as often as it is right at all; where it errs, its error is one that others made as well about every
third time (`SAME_ERROR`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestration.trust.trust import Trust

SAME_ERROR = 0.35
"""The share of errors that two models make alike. Of wrong answers of two models at GSM8K, MMLU-Pro and MATH,
0.13 to 0.41 were the same."""
LEAD_STEP = 0.05
"""Leads are told apart to this."""


@dataclass(frozen=True, slots=True)
class LeadForecast:
    """The probability that the leader of a vote leads when all have voted. It is `proven` where the records
    of all that it depends on say so, or where no vote that is out can change it."""

    probability: float
    proven: bool


def forecast_lead(trust: Trust, groups: Sequence[Sequence[str]], out: Sequence[str]) -> LeadForecast:
    """Of a vote in which the models of `groups` agree, the leading group first, and those of `out` are to
    vote yet. A tie counts as a loss."""
    if not groups:
        return LeadForecast(0.0, proven=True)
    if not out:
        return LeadForecast(1.0, proven=True)
    scores = [trust.group_weight(group) for group in groups]
    lead = scores[0] - max(scores[1:], default=0.0)
    weights = [trust.weight(model) for model in out]
    if lead > sum(weights) + 1e-9:
        return LeadForecast(1.0, proven=True)
    proven = all(trust.is_proven(model) for model in (*groups[0], *out))
    if lead < 0:
        return LeadForecast(0.0, proven)
    right = trust.posterior(dict(enumerate(groups)))
    leader, rival = right[0], max((right[at] for at in range(1, len(groups))), default=0.0)
    neither = max(0.0, 1 - leader - rival)
    if len(groups) == 1:  # what the others may agree on has not been said yet
        rival, neither = neither, 0.0
    ahead = _ahead(lead, weights, [trust.accuracy(model).mean for model in out])
    return LeadForecast(min(1.0, float(ahead @ np.array([leader, rival, neither]))), proven)


def _ahead(lead: float, weights: Sequence[float], accuracies: Sequence[float]) -> NDArray[np.float64]:
    """The probabilities that the lead stays above 0: where the leader is right, where its rival is, and where
    neither is."""
    start, steps = round(lead / LEAD_STEP), [max(1, round(weight / LEAD_STEP)) for weight in weights]
    most = sum(steps)
    leads = np.zeros((3, 2 * most + 1))  # each column a lead from `start - most` to `start + most`
    leads[:, most] = 1.0
    for step, right in zip(steps, accuracies, strict=True):
        wrong = (1 - right) * SAME_ERROR
        for_leader = np.array([[right], [wrong], [wrong / 2]])
        for_rival = np.array([[wrong], [right], [wrong / 2]])
        after = leads * (1 - for_leader - for_rival)
        after[:, step:] += for_leader * leads[:, :-step]
        after[:, :-step] += for_rival * leads[:, step:]
        leads = after
    first = max(0, most - start + 1)
    found: NDArray[np.float64] = leads[:, first:].sum(axis=1)
    return found
