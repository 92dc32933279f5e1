"""Which models vote: those that are expected to be right together more often than fewer would be.

What a panel is expected to do is simulated: each voter is right as often as its record says, and errs as
others do with the share `SAME_ERROR`, more often as those of its family. The strongest is in, then whoever
adds most, for what it writes, until nobody adds `LEAST_GAIN`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from orchestration.trust.ending import SAME_ERROR
from orchestration.trust.families import base_name, family_of
from orchestration.trust.trust import AGREEMENT, LEAST, Trust

DRAWS = 2_000
CANDIDATES = 10
"""The most trusted models that are looked at."""
LEAST_GAIN = 0.002
"""Of the share of right answers, for as many tokens as the others write on average."""
FAMILY_ERROR = 0.5
"""The share of errors that two models of one family make alike."""
STEP = 0.02
"""Accuracies are told apart to this, so that what was simulated is found again."""


def choose_panel(
    trust: Trust, models: Sequence[str], most: int, tokens: Callable[[str], float | None]
) -> list[str]:
    """At most `most` of `models`, the most trusted first. `tokens` says what each writes mostly, None where
    nobody knows. Copies of one model are asked once."""
    ranked = sorted(dict.fromkeys(models), key=lambda name: -round(trust.weight(name), 6))
    distinct: dict[str, str] = {}
    for name in ranked:
        distinct.setdefault(base_name(name), name)
    ranked = list(distinct.values())
    candidates = ranked[:CANDIDATES]
    if not any(trust.is_proven(name) for name in candidates):
        return candidates[:most]  # nobody knows who adds what
    known = [length for name in candidates if (length := tokens(name)) is not None]
    usual = sum(known) / len(known) if known else 1.0
    panel, rest = candidates[:1], candidates[1:]
    while rest and len(panel) < most:
        added = _best_addition(trust, panel, rest, lambda name: (tokens(name) or usual) / usual)
        if not added or len(panel) + len(added) > most:
            break
        panel += added
        rest = [name for name in rest if name not in added]
    return panel


def _best_addition(
    trust: Trust, panel: Sequence[str], rest: Sequence[str], cost: Callable[[str], float]
) -> list[str]:
    """Who adds most to a panel, for what it costs: one model, or two where one alone adds nothing, since of
    two that differ nobody knows who is right. Nobody where that is too little."""
    now = _expected(trust, panel)
    offers = [[name] for name in rest], [[rest[0], name] for name in rest[1:]]
    for additions in offers:
        gains = [(_expected(trust, [*panel, *names]) - now) / sum(map(cost, names)) for names in additions]
        if gains and max(gains) >= LEAST_GAIN:
            return additions[gains.index(max(gains))]
    return []


def _expected(trust: Trust, models: Sequence[str]) -> float:
    """The share of right answers of a panel."""
    shares = tuple(round(trust.accuracy(name).mean / STEP) for name in models)
    families = [family_of(name) for name in models]
    return _simulated(shares, tuple(families.index(family) for family in families))


@lru_cache(maxsize=4_096)
def _simulated(shares: tuple[int, ...], families: tuple[int, ...]) -> float:
    """`shares` in steps of `STEP`; models of one family have the same number."""
    draws = np.random.default_rng(1)
    count = len(shares)
    right_share = np.clip(np.asarray(shares) * STEP, 0.02, 0.98)
    weights = np.clip(np.log(right_share / (1 - right_share)) + AGREEMENT, LEAST, None)
    right = draws.random((DRAWS, count)) < right_share
    common = draws.random((DRAWS, count)) < SAME_ERROR
    kin = draws.random((DRAWS, count)) < FAMILY_ERROR
    score = (right * weights).sum(axis=1)
    together = (~right & common) * weights
    rival = together.sum(axis=1)
    alone = np.where(~right & ~common, weights, 0.0).max(axis=1)
    for family in set(families):
        mine = np.asarray(families) == family
        if mine.sum() > 1:
            alone = np.maximum(alone, (np.where(~right & ~common & kin, weights, 0.0) * mine).sum(axis=1))
    return float((score > np.maximum(rival, alone)).mean())
