"""Which arm next: Thompson sampling of the share of good answers, less what the arm costs.

Each arm's share has a Beta distribution, of its prior and its judgements; a share is drawn from each, and the
arm whose draw is best is taken, so that arms are tried as often as they may be the best (Thompson 1933,
Biometrika 25; Chapelle and Li 2011, "An empirical evaluation of Thompson sampling"). A floor of exploration
tries any arm now and then, however bad it looks. The draws depend on the run's id alone: with the same record
the same run chooses the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from orchestration.trust.counts import Counts
from orchestration.trust.records import Cost, KindRecord
from orchestration.tuning.profiles import Arm

PRIOR_WEIGHT = 30.0
"""Judgements that a prior counts as: ten of a user turn it."""
COSTLY_TOKENS, COSTLY_SECONDS = 4000.0, 60.0
"""A run that takes as much, or longer, has all of `cost_weight` taken off."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """`why` is for people."""

    arm: Arm
    why: str


def choose(
    arms: Sequence[Arm], record: KindRecord, run_id: str, *, explore: float = 0.05, cost_weight: float = 0.15
) -> Chosen:
    """One of `arms`, of which there is at least one. With a chance of `explore` any of them."""
    draws = np.random.default_rng(int.from_bytes(sha256(run_id.encode()).digest()[:8]))
    explored, any_arm = draws.random() < explore, int(draws.integers(len(arms)))
    likely = [_drawn(draws, arm, record.arm(arm.name)) - cost_weight * cost(record, arm) for arm in arms]
    if explored:
        return Chosen(arms[any_arm], "tried whatever its record, as a few runs are")
    arm = arms[int(np.argmax(likely))]
    tally = record.arm(arm.name)
    if not tally.total:
        return Chosen(arm, "thought best before any run was judged")
    return Chosen(arm, f"{expected(arm, tally):.0%} good answers expected, {tally.total:.0f} judgements")


def share_of(run_id: str) -> float:
    """A number from 0 to 1 that is a run's own, as if drawn."""
    return int.from_bytes(sha256(f"audit {run_id}".encode()).digest()[:8]) / 2**64


def best(arms: Sequence[Arm]) -> Chosen:
    """The arm that is thought best beforehand."""
    return Chosen(max(arms, key=lambda arm: arm.prior), "the usual way; learning is off")


def expected(arm: Arm, tally: Counts) -> float:
    """The mean share of good answers."""
    return (PRIOR_WEIGHT * arm.prior + tally.right) / (PRIOR_WEIGHT + tally.total)


def cost(record: KindRecord, arm: Arm) -> float:
    """From 0 to 1: half for tokens, half for seconds. What was never run costs nothing yet."""
    known = record.costs.get(arm.name, Cost())
    return (min(1, known.tokens / COSTLY_TOKENS) + min(1, known.seconds / COSTLY_SECONDS)) / 2


def _drawn(draws: np.random.Generator, arm: Arm, tally: Counts) -> float:
    good = PRIOR_WEIGHT * arm.prior + tally.right
    bad = PRIOR_WEIGHT * (1 - arm.prior) + tally.wrong
    return float(draws.beta(good, bad))
