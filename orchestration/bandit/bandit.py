"""Chooses the next arm: Thompson sampling of the share of good answers, minus the cost of the arm.

The share of each arm has a distribution that follows from the record of its models and its judgements
(`beliefs`). One share is drawn for each arm, and the arm with the best draw is chosen, so arms are tried as
often as they may be the best (Thompson 1933, Biometrika 25; Chapelle and Li 2011, "An empirical evaluation of
Thompson sampling"). While models are not well known, asking several of them also improves their records
(knowledge gradient: Frazier et al. 2008, SIAM Journal on Control and Optimization 47), which counts in favour
of a panel. A fixed share of runs explores: it asks several models, or tries another arm, less often the worse
the arm is. The draws depend on the id of the run alone: with the same record a run always gets the same arm.
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
"""A run with at least this many tokens and seconds has the full `cost_weight` subtracted."""
MODEL_COST_FACTOR = 0.2
"""The factor for the costs of single models and panels. A better answer matters more than a cheaper one, and
a vote of five costs one point at most. Other teams are less predictable and write several times as much."""
MIN_LEARNING_GAIN = 0.01
"""The minimum gain, as a share of good answers, of asking all models to improve their records, if they write
many times as much as the one that would answer."""
EXPLORATION_SCALE = 0.08
"""An arm whose share of good answers is lower by this is explored e times less often. Exploring on 5 % of the
runs then costs about half a point at most."""


@dataclass(frozen=True, slots=True)
class ArmChoice:
    """The arm for a run."""

    arm: Arm
    reason: str
    """Why it was chosen, for people."""
    audit: bool = False
    """Whether all models are asked and their vote runs to its end, to improve their records."""


def choose(
    arms: Sequence[Arm],
    record: KindRecord,
    run_id: str,
    *,
    explore: float = 0.05,
    cost_weight: float = 0.15,
    trust: Trust | None = None,
) -> ArmChoice:
    """Return one of `arms`, of which there is at least one. With probability `explore` the run explores.
    `trust` holds the records of the models."""
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
        return ArmChoice(arms[any_arm], "explored regardless of its record, as on a few runs")
    worth = [share - less for share, less in zip(beliefs.sample(draws), costs, strict=True)]
    best_at, panel = int(np.argmax(worth)), _panel(arms)
    if panel is None or panel == best_at:
        return ArmChoice(arms[best_at], reason(arms[best_at], beliefs.means[best_at], beliefs))
    gain = beliefs.value_of_learning(draws) - MIN_LEARNING_GAIN * _saved_share(
        record, arms[panel], arms[best_at]
    )
    if worth[panel] + gain > worth[best_at]:
        unclear = f"which of {sum(bool(arm.model) for arm in arms)} models is the best is not clear yet"
        return ArmChoice(arms[panel], f"{unclear}: their answers together show it", audit=True)
    return ArmChoice(arms[best_at], reason(arms[best_at], beliefs.means[best_at], beliefs))


def run_fraction(run_id: str) -> float:
    """Return a number from 0 to 1 that is fixed for each run, as if drawn at random."""
    return int.from_bytes(sha256(f"audit {run_id}".encode()).digest()[:8]) / 2**64


def best(arms: Sequence[Arm]) -> ArmChoice:
    """Return the arm with the highest prior."""
    return ArmChoice(max(arms, key=lambda arm: arm.prior), "the usual way; learning is off")


def expected(arm: Arm, counts: Counts) -> float:
    """Return the mean share of good answers of an arm that names no models."""
    return (PRIOR_WEIGHT * arm.prior + counts.right) / (PRIOR_WEIGHT + counts.total)


def arm_cost(record: KindRecord, arm: Arm) -> float:
    """Return the cost from 0 to 1: half for tokens, half for seconds. An arm without runs has its expected
    tokens."""
    known = record.costs.get(arm.name, Cost(tokens=arm.tokens))
    return (min(1, known.tokens / COSTLY_TOKENS) + min(1, known.seconds / COSTLY_SECONDS)) / 2


def _saved_share(record: KindRecord, panel: Arm, alone: Arm) -> float:
    """Return the share of a panel's tokens that the other arm would save; 0 if it is unknown."""
    tokens = [record.costs.get(arm.name, Cost(tokens=arm.tokens)).tokens for arm in (panel, alone)]
    return max(0.0, 1 - tokens[1] / tokens[0]) if all(tokens) else 0.0


def _explored(beliefs: Beliefs, costs: Sequence[float], draws: np.random.Generator) -> ArmChoice:
    """Return the panel, which costs tokens but hardly any quality; without a panel another arm, less often
    the worse it is."""
    arms, panel = beliefs.arms, _panel(beliefs.arms)
    if panel is not None:
        return ArmChoice(
            arms[panel], "all models are asked to see how each does, as on a few runs", audit=True
        )
    worth = [mean - less for mean, less in zip(beliefs.means, costs, strict=True)]
    odds = np.exp((np.asarray(worth) - max(worth)) / EXPLORATION_SCALE)
    arm = arms[int(draws.choice(len(arms), p=odds / odds.sum()))]
    return ArmChoice(arm, "explored to see how it does, as on a few runs")


def _is_known(arm: Arm) -> bool:
    return bool(arm.model) or (arm.pattern == ENSEMBLE and bool(arm.members))


def _panel(arms: Sequence[Arm]) -> int | None:
    """Return the index of the panel arm, if there are enough models for their votes to say something."""
    if len({base_name(arm.model) for arm in arms if arm.model}) < MIN_VOTERS:
        return None
    return next((at for at, arm in enumerate(arms) if arm.pattern == ENSEMBLE), None)
