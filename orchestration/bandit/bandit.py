"""Which arm next: Thompson sampling of the share of good answers, less what the arm costs.

Each arm's share has a distribution, of what is known of its models and of its judgements (`beliefs`); one is
drawn from each, and the arm whose draw is best is taken, so that arms are tried as often as they may be the
best (Thompson 1933, Biometrika 25; Chapelle and Li 2011, "An empirical evaluation of Thompson sampling").
While models are not known yet, an answer of several teaches of each (knowledge gradient: Frazier et al. 2008,
SIAM Journal on Control and Optimization 47), which counts for a panel. A floor of exploration asks several
now and then, or tries another arm, the less often the worse it is. The draws depend on the run's id alone:
with the same record the same run chooses the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from orchestration.bandit.beliefs import PRIOR_WEIGHT, Beliefs
from orchestration.bandit.reasons import reason
from orchestration.query_analysis.profiles import ENSEMBLE, Arm
from orchestration.trust.counts import Counts
from orchestration.trust.families import base_name
from orchestration.trust.records import Cost, KindRecord
from orchestration.trust.trust import MIN_VOTERS, Trust

COSTLY_TOKENS, COSTLY_SECONDS = 4000.0, 60.0
"""A run that takes as much, or longer, has all of `cost_weight` taken off."""
MODEL_COST_FACTOR = 0.2
"""What costs count of an arm whose models say how good it is: a better answer goes before a cheaper one, and
a vote of five loses a point at most. Of other teams less is known, and they write several times as much."""
MIN_LEARNING_GAIN = 0.01
"""Share of good answers that asking all, to learn how good each is, has to be worth where they write many
times as much as the one that would answer."""
EXPLORATION_SCALE = 0.08
"""Share of good answers by which an arm may be worse to be tried a third as often; what exploring on 5 % of
the runs costs is at most about half a point then."""


@dataclass(frozen=True, slots=True)
class ArmChoice:
    """`reason` is for people; `audit` says that all models are asked, and heard whole, to learn how good each
    is."""

    arm: Arm
    reason: str
    audit: bool = False


def choose(
    arms: Sequence[Arm],
    record: KindRecord,
    run_id: str,
    *,
    explore: float = 0.05,
    cost_weight: float = 0.15,
    trust: Trust | None = None,
) -> ArmChoice:
    """One of `arms`, of which there is at least one. With a chance of `explore` one that teaches, or another
    that may be as good. `trust` is what is known of models."""
    draws = np.random.default_rng(int.from_bytes(sha256(run_id.encode()).digest()[:8]))
    explored, any_arm = draws.random() < explore, int(draws.integers(len(arms)))
    beliefs = Beliefs(arms, record, trust or Trust())
    costs = [
        cost_weight * arm_cost(record, arm) * (MODEL_COST_FACTOR if _is_known(arm) else 1.0) for arm in arms
    ]
    if any(arm.model for arm in arms):
        if run_fraction(run_id) < explore:
            return _explored(beliefs, costs, draws)
    elif explored:
        return ArmChoice(arms[any_arm], "tried whatever its record, as a few runs are")
    worth = [share - less for share, less in zip(beliefs.drawn(draws), costs, strict=True)]
    at, panel = int(np.argmax(worth)), _panel(arms)
    if panel is None or panel == at:
        return ArmChoice(arms[at], reason(arms[at], beliefs.means[at], beliefs))
    taught = beliefs.learning(draws) - MIN_LEARNING_GAIN * _dearer(record, arms[panel], arms[at])
    if worth[panel] + taught > worth[at]:
        unclear = f"which of {sum(bool(arm.model) for arm in arms)} models is the best is not clear yet"
        return ArmChoice(arms[panel], f"{unclear}: their answers together show it", audit=True)
    return ArmChoice(arms[at], reason(arms[at], beliefs.means[at], beliefs))


def run_fraction(run_id: str) -> float:
    """A number from 0 to 1 that is a run's own, as if drawn."""
    return int.from_bytes(sha256(f"audit {run_id}".encode()).digest()[:8]) / 2**64


def best(arms: Sequence[Arm]) -> ArmChoice:
    """The arm that is thought best beforehand."""
    return ArmChoice(max(arms, key=lambda arm: arm.prior), "the usual way; learning is off")


def expected(arm: Arm, tally: Counts) -> float:
    """The mean share of good answers, of an arm that names no models."""
    return (PRIOR_WEIGHT * arm.prior + tally.right) / (PRIOR_WEIGHT + tally.total)


def arm_cost(record: KindRecord, arm: Arm) -> float:
    """From 0 to 1: half for tokens, half for seconds. What was never run costs the tokens expected of it."""
    known = record.costs.get(arm.name, Cost(tokens=arm.tokens))
    return (min(1, known.tokens / COSTLY_TOKENS) + min(1, known.seconds / COSTLY_SECONDS)) / 2


def _dearer(record: KindRecord, panel: Arm, alone: Arm) -> float:
    """What part of a panel's tokens the other arm would save; 0 where nobody knows."""
    tokens = [record.costs.get(arm.name, Cost(tokens=arm.tokens)).tokens for arm in (panel, alone)]
    return max(0.0, 1 - tokens[1] / tokens[0]) if all(tokens) else 0.0


def _explored(beliefs: Beliefs, costs: Sequence[float], draws: np.random.Generator) -> ArmChoice:
    """Several models at once, which costs tokens and hardly any answer; else another arm, the less often the
    worse it is."""
    arms, panel = beliefs.arms, _panel(beliefs.arms)
    if panel is not None:
        return ArmChoice(
            arms[panel], "all models are asked to see how each does, as on a few runs", audit=True
        )
    worth = [mean - less for mean, less in zip(beliefs.means, costs, strict=True)]
    odds = np.exp((np.asarray(worth) - max(worth)) / EXPLORATION_SCALE)
    arm = arms[int(draws.choice(len(arms), p=odds / odds.sum()))]
    return ArmChoice(arm, "tried to see how it does, as on a few runs")


def _is_known(arm: Arm) -> bool:
    return bool(arm.model) or (arm.pattern == ENSEMBLE and bool(arm.members))


def _panel(arms: Sequence[Arm]) -> int | None:
    """The place of the arm that asks several models, where there are enough to teach something of each
    other."""
    if len({base_name(arm.model) for arm in arms if arm.model}) < MIN_VOTERS:
        return None
    return next((at for at, arm in enumerate(arms) if arm.pattern == ENSEMBLE), None)
