"""Chooses the panel of models that vote: the one that is expected to be right most often for its tokens.

The result of a panel is simulated. Each voter is right as often as its record says, shares errors with others
at the rate `SAME_ERROR`, and more often with models of its family. The panel starts with the most trusted
model; then the model that adds most per token joins, until none adds `MIN_GAIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from orchestration.trust.early_stop import SAME_ERROR
from orchestration.trust.families import family_of, same_model
from orchestration.trust.trust import AGREEMENT_BONUS, MAX_WEIGHT, MIN_WEIGHT, Trust

DRAWS = 2_000
MAX_CANDIDATES = 10
"""How many of the most trusted models are considered."""
MIN_GAIN = 0.002
"""Minimum gain in the share of right answers, for a model that writes as many tokens as the average one."""
FAMILY_ERROR = 0.5
"""The share of errors that two models of one family have in common."""
HARD_TOGETHER, HARD_SAME = 0.6, 0.5
"""The correlation of how hard models find a question, and the share of errors that two models have in common
beyond that. For 29 panels of 3 to 6 models at GSM8K, MMLU-Pro and MATH these values predict the gain of a
vote over its best member to 1.2 points, without bias; independent errors predict five times too much."""
ACCURACY_STEP = 0.02
"""Accuracies are rounded to multiples of this, so that simulations can be cached."""
_NORMAL = NormalDist()


def choose_panel(
    trust: Trust, models: Sequence[str], max_models: int, tokens: Callable[[str], float | None]
) -> list[str]:
    """Return at most `max_models` of `models`, the most trusted first.

    `tokens` returns the usual answer length of a model, None if it is unknown. Copies of one model join once.
    In an audit, models that only answer alike all join, because a name may mean another model by now. If no
    model adds enough, the second most trusted one joins anyway; a vote asks it only if the first does not
    decide.
    """
    ranked = sorted(dict.fromkeys(models), key=lambda name: -round(trust.weight(name), 6))
    same = same_model if trust.audit else trust.are_copies
    candidates: list[str] = []
    for name in ranked:
        if len(candidates) < MAX_CANDIDATES and not any(same(name, other) for other in candidates):
            candidates.append(name)
    if trust.audit or not any(trust.is_proven(name) for name in candidates):
        return candidates[:max_models]  # without records, or in an audit, all are asked
    known = [length for name in candidates if (length := tokens(name)) is not None]
    usual = sum(known) / len(known) if known else 1.0
    panel, rest = candidates[:1], candidates[1:]
    while rest and len(panel) < max_models:
        added = _best_addition(trust, panel, rest, lambda name: (tokens(name) or usual) / usual)
        if not added or len(panel) + len(added) > max_models:
            break
        panel += added
        rest = [name for name in rest if name not in added]
    return panel if len(panel) > 1 else candidates[: min(2, max_models)]


def _best_addition(
    trust: Trust, panel: Sequence[str], rest: Sequence[str], cost: Callable[[str], float]
) -> list[str]:
    """Return the models whose addition gains most for their cost, or nothing if that is too little. Usually
    it is one model; two if one alone adds nothing, because a vote of two that differ has no majority."""
    now = _expected(trust, panel)
    offers = [[name] for name in rest], [[rest[0], name] for name in rest[1:]]
    for additions in offers:
        gains = [(_expected(trust, [*panel, *names]) - now) / sum(map(cost, names)) for names in additions]
        if gains and max(gains) >= MIN_GAIN:
            return additions[gains.index(max(gains))]
    return []


def _expected(trust: Trust, models: Sequence[str]) -> float:
    """Return the expected share of right answers of a panel."""
    return _simulated(*_steps({name: trust.accuracy(name).mean for name in models}))


def gain_together(shares: Mapping[str, float]) -> float:
    """Return how much the expected share of right answers of a vote is above that of its best model. `shares`
    are the shares of right answers by model."""
    steps, families = _steps(shares)
    alone = _simulated(steps[:1], (0,), HARD_TOGETHER, HARD_SAME)
    return max(0.0, _simulated(steps, families, HARD_TOGETHER, HARD_SAME) - alone)


def _steps(shares: Mapping[str, float]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the accuracies in steps of `ACCURACY_STEP`, the best first, and a family number for each."""
    ranked = sorted(shares, key=lambda name: -shares[name])
    families = [family_of(name) for name in ranked]
    steps = tuple(round(shares[name] / ACCURACY_STEP) for name in ranked)
    return steps, tuple(families.index(family) for family in families)


@lru_cache(maxsize=4_096)
def _simulated(
    steps: tuple[int, ...], families: tuple[int, ...], hard: float = 0.0, same: float = SAME_ERROR
) -> float:
    """Simulate a vote and return its share of right answers. `hard` is the correlation of how hard all models
    find a question."""
    draws = np.random.default_rng(1)
    share = np.clip(np.asarray(steps) * ACCURACY_STEP, 0.02, 0.98)
    weights = np.clip(np.log(share / (1 - share)) + AGREEMENT_BONUS, MIN_WEIGHT, MAX_WEIGHT)
    difficulty = np.sqrt(hard) * draws.standard_normal((DRAWS, 1))
    difficulty = difficulty + np.sqrt(1 - hard) * np.column_stack(
        [draws.standard_normal(DRAWS) for _ in steps]
    )
    right = difficulty < np.asarray([_NORMAL.inv_cdf(each) for each in share])
    common = draws.random((DRAWS, len(steps))) < same
    family_error = draws.random((DRAWS, len(steps))) < FAMILY_ERROR
    score = (right * weights).sum(axis=1)
    rival = ((~right & common) * weights).sum(axis=1)
    alone = np.where(~right & ~common, weights, 0.0).max(axis=1)
    for family in set(families):
        members = np.asarray(families) == family
        if members.sum() > 1:
            alone = np.maximum(
                alone, (np.where(~right & ~common & family_error, weights, 0.0) * members).sum(axis=1)
            )
    return float((score > np.maximum(rival, alone)).mean())
