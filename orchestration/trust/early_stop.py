"""Decides when a vote among models may stop: when the missing votes cannot, or hardly can, change the result.

The forecast of each missing vote follows from the record of its voter. If the leading answer is right, the
voter gives it as often as it is right at all. If the voter is wrong, it makes an error that others made too
in about one of three cases (`SAME_ERROR`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestration.trust.trust import Trust

SAME_ERROR = 0.35
"""The share of errors that two models have in common. Of the wrong answers of two models at GSM8K, MMLU-Pro
and MATH, 0.13 to 0.41 were the same."""
LEAD_STEP = 0.05
"""Resolution of leads in the forecast, in the unit of vote weights."""


@dataclass(frozen=True, slots=True)
class LeadForecast:
    """How likely the leading answer still leads when all have voted."""

    probability: float
    """From 0 to 1."""
    proven: bool
    """True if the records of all models involved are long enough, or if no missing vote can change the
    result."""


def forecast_lead(trust: Trust, groups: Sequence[Sequence[str]], missing: Sequence[str]) -> LeadForecast:
    """Forecast a vote. `groups` are the models by the answer they gave, the leading group first; `missing`
    are those that have not voted yet. A tie counts as a loss of the lead."""
    if not groups:
        return LeadForecast(0.0, proven=True)
    if not missing:
        return LeadForecast(1.0, proven=True)
    scores = [trust.group_weight(group) for group in groups]
    lead = scores[0] - max(scores[1:], default=0.0)
    weights = [trust.weight(model) for model in missing]
    if lead > sum(weights) + 1e-9:
        return LeadForecast(1.0, proven=True)
    proven = all(trust.is_proven(model) for model in (*groups[0], *missing))
    if lead < 0:
        return LeadForecast(0.0, proven)
    right = trust.posterior(dict(enumerate(groups)))
    leader, rival = right[0], max((right[index] for index in range(1, len(groups))), default=0.0)
    neither = max(0.0, 1 - leader - rival)
    if len(groups) == 1:  # no voter has given yet what the others may agree on
        rival, neither = neither, 0.0
    ahead = _ahead(lead, weights, [trust.accuracy(model).mean for model in missing])
    return LeadForecast(min(1.0, float(ahead @ np.array([leader, rival, neither]))), proven)


def _ahead(lead: float, weights: Sequence[float], accuracies: Sequence[float]) -> NDArray[np.float64]:
    """Return the probabilities that the lead stays above 0 if the leader is right, if its rival is, and if
    neither is."""
    start, steps = round(lead / LEAD_STEP), [max(1, round(weight / LEAD_STEP)) for weight in weights]
    span = sum(steps)
    leads = np.zeros((3, 2 * span + 1))  # each column a lead from `start - span` to `start + span`
    leads[:, span] = 1.0
    for step, right in zip(steps, accuracies, strict=True):
        wrong = (1 - right) * SAME_ERROR
        for_leader = np.array([[right], [wrong], [wrong / 2]])
        for_rival = np.array([[wrong], [right], [wrong / 2]])
        updated = leads * (1 - for_leader - for_rival)
        updated[:, step:] += for_leader * leads[:, :-step]
        updated[:, :-step] += for_rival * leads[:, step:]
        leads = updated
    first = max(0, span - start + 1)
    ahead: NDArray[np.float64] = leads[:, first:].sum(axis=1)
    return ahead
