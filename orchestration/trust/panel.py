"""Which models vote: those that are expected to be right together more often than fewer would be.

What a panel is expected to do is simulated: each voter is right as often as its record says, and errs as
others do with the share `SAME_ERROR`, more often as those of its family. The strongest is in, then whoever
adds most, for what it writes, until nobody adds `MIN_GAIN`."""

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
"""The most trusted models that are looked at."""
MIN_GAIN = 0.002
"""Of the share of right answers, for as many tokens as the others write on average."""
FAMILY_ERROR = 0.5
"""The share of errors that two models of one family make alike."""
HARD_TOGETHER, HARD_SAME = 0.6, 0.5
"""How far models find the same questions hard (correlation of what they can), and the share of errors that
two make alike beside that. Of 29 panels of 3 to 6 models at GSM8K, MMLU-Pro and MATH, what a vote gains on
its best member is told to 1.2 points by these, on average neither too high nor too low; by errors that have
nothing in common it is told five times too high."""
ACCURACY_STEP = 0.02
"""Accuracies are told apart to this, so that what was simulated is found again."""
_NORMAL = NormalDist()


def choose_panel(
    trust: Trust, models: Sequence[str], most: int, tokens: Callable[[str], float | None]
) -> list[str]:
    """At most `most` of `models`, the most trusted first. `tokens` says what each writes mostly, None where
    nobody knows. Copies of one model are asked once; of names that only answer alike both are where the run
    audits, since one may stand for another model by now. Where nobody adds anything the second is in all the
    same, which a vote asks only while the first does not decide it."""
    ranked = sorted(dict.fromkeys(models), key=lambda name: -round(trust.weight(name), 6))
    same = same_model if trust.audit else trust.are_copies
    candidates: list[str] = []
    for name in ranked:
        if len(candidates) < MAX_CANDIDATES and not any(same(name, other) for other in candidates):
            candidates.append(name)
    if trust.audit or not any(trust.is_proven(name) for name in candidates):
        return candidates[:most]  # nobody knows who adds what, or this run is to see how all do
    known = [length for name in candidates if (length := tokens(name)) is not None]
    usual = sum(known) / len(known) if known else 1.0
    panel, rest = candidates[:1], candidates[1:]
    while rest and len(panel) < most:
        added = _best_addition(trust, panel, rest, lambda name: (tokens(name) or usual) / usual)
        if not added or len(panel) + len(added) > most:
            break
        panel += added
        rest = [name for name in rest if name not in added]
    return panel if len(panel) > 1 else candidates[: min(2, most)]


def _best_addition(
    trust: Trust, panel: Sequence[str], rest: Sequence[str], cost: Callable[[str], float]
) -> list[str]:
    """Who adds most to a panel, for what it costs: one model, or two where one alone adds nothing, since of
    two that differ nobody knows who is right. Nobody where that is too little."""
    now = _expected(trust, panel)
    offers = [[name] for name in rest], [[rest[0], name] for name in rest[1:]]
    for additions in offers:
        gains = [(_expected(trust, [*panel, *names]) - now) / sum(map(cost, names)) for names in additions]
        if gains and max(gains) >= MIN_GAIN:
            return additions[gains.index(max(gains))]
    return []


def _expected(trust: Trust, models: Sequence[str]) -> float:
    """The share of right answers of a panel."""
    return _simulated(*_steps({name: trust.accuracy(name).mean for name in models}))


def gain_together(shares: Mapping[str, float]) -> float:
    """What a vote of models that are right as often as `shares` says gains on the best of them, as a share of
    all questions."""
    steps, families = _steps(shares)
    alone = _simulated(steps[:1], (0,), HARD_TOGETHER, HARD_SAME)
    return max(0.0, _simulated(steps, families, HARD_TOGETHER, HARD_SAME) - alone)


def _steps(shares: Mapping[str, float]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """In steps of `ACCURACY_STEP`, the best first, and the number of each model's family: models of one have
    the same."""
    ranked = sorted(shares, key=lambda name: -shares[name])
    families = [family_of(name) for name in ranked]
    steps = tuple(round(shares[name] / ACCURACY_STEP) for name in ranked)
    return steps, tuple(families.index(family) for family in families)


@lru_cache(maxsize=4_096)
def _simulated(
    steps: tuple[int, ...], families: tuple[int, ...], hard: float = 0.0, same: float = SAME_ERROR
) -> float:
    """The share of right answers of a vote; `hard` is how far all find the same questions hard."""
    draws = np.random.default_rng(1)
    share = np.clip(np.asarray(steps) * ACCURACY_STEP, 0.02, 0.98)
    weights = np.clip(np.log(share / (1 - share)) + AGREEMENT_BONUS, MIN_WEIGHT, MAX_WEIGHT)
    able = np.sqrt(hard) * draws.standard_normal((DRAWS, 1))
    able = able + np.sqrt(1 - hard) * np.column_stack([draws.standard_normal(DRAWS) for _ in steps])
    right = able < np.asarray([_NORMAL.inv_cdf(each) for each in share])
    common = draws.random((DRAWS, len(steps))) < same
    kin = draws.random((DRAWS, len(steps))) < FAMILY_ERROR
    score = (right * weights).sum(axis=1)
    rival = ((~right & common) * weights).sum(axis=1)
    alone = np.where(~right & ~common, weights, 0.0).max(axis=1)
    for family in set(families):
        mine = np.asarray(families) == family
        if mine.sum() > 1:
            alone = np.maximum(alone, (np.where(~right & ~common & kin, weights, 0.0) * mine).sum(axis=1))
    return float((score > np.maximum(rival, alone)).mean())
