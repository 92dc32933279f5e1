"""The expected share of good answers of each arm, from the records of its models and of the arm itself.

For a model that answers alone, this is how often the model is right, so every vote and every rating of any of
its answers counts. For a panel, it is the share of its best member plus the gain of a vote, which uses more
observations than the ratings of either. Other teams start from a prior relative to one model, and their own
ratings are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from orchestration.query_analysis.profiles import ENSEMBLE, SINGLE_PRIOR, Arm
from orchestration.trust.counts import Counts
from orchestration.trust.panel import gain_together
from orchestration.trust.records import KindRecord
from orchestration.trust.trust import SOURCE_WEIGHTS, Trust

PRIOR_WEIGHT = 30.0
"""Judgements that a prior counts as; ten of a user outweigh it."""
GAIN_WEIGHT, DIFFERING_VOTES = 400.0, 0.1
"""The number of judged votes that the expected gain of a panel counts as, and about what share of votes
differs from the most trusted voter. The expected gain is accurate to 1.5 points, which takes 400 judged votes
to measure."""
CONCENTRATION = 4.0
"""The factor by which draws are narrower than the actual uncertainty. Draws as wide as the uncertainty would
take the second best of several models on every third run for years; asking several models reduces the
uncertainty faster."""
HORIZON = 200
"""Questions over which an observation is useful: about what records remember."""
DRAWS = 400
"""Samples of the share of each model when the value of learning is estimated."""


@dataclass(frozen=True)
class Beliefs:
    """The beliefs about some arms."""

    arms: Sequence[Arm]
    record: KindRecord
    trust: Trust

    @property
    def means(self) -> list[float]:
        """The expected share of good answers of each arm."""
        shares = {model: counts.right / counts.total for model, counts in self._models.items()}
        return [self._share(arm, shares, None) for arm in self.arms]

    def sample(self, draws: np.random.Generator) -> list[float]:
        """Draw a share for each arm."""
        shares = {
            model: float(draws.beta(CONCENTRATION * counts.right, CONCENTRATION * counts.wrong))
            for model, counts in self._models.items()
        }
        return [self._share(arm, shares, draws) for arm in self.arms]

    def value_of_learning(self, draws: np.random.Generator) -> float:
        """Return what the answers of several models to one question are worth in addition to the answer
        itself, as a share of right answers: how much better the best model may be than the one with the best
        mean, times how much one more answer of each reduces that uncertainty, over `HORIZON` questions."""
        alone = [self._models[arm.model] for arm in self.arms if arm.model]
        if not self.trust.learns:
            return 0.0
        right, wrong = ([getattr(counts, side) for counts in alone] for side in ("right", "wrong"))
        shares = draws.beta(right, wrong, (DRAWS, len(alone)))
        regret = float(shares.max(axis=1).mean() - shares.mean(axis=0).max())
        known = sum(counts.total for counts in alone) / len(alone)
        return HORIZON * max(0.0, regret) * SOURCE_WEIGHTS["vote"] / (2 * known)

    def best_of(self, models: Sequence[str]) -> str:
        """Return the model with the highest expected share."""
        return max(models, key=lambda name: self._models[name].right / self._models[name].total)

    @cached_property
    def _models(self) -> Mapping[str, Counts]:
        names = {name for arm in self.arms for name in (arm.model, *arm.members) if name}
        return {name: self.trust.belief(name) for name in sorted(names)}

    def _share(self, arm: Arm, shares: Mapping[str, float], draws: np.random.Generator | None) -> float:
        if arm.model:
            return shares[arm.model]
        best = shares[self.best_of(arm.members)] if arm.members else 0.0
        if arm.members and arm.pattern == ENSEMBLE:
            return min(1.0, best + self.gain(arm.members))
        prior = _beside(best, arm.prior) if arm.members else arm.prior
        judged = self.record.arm(arm.name)
        good = PRIOR_WEIGHT * prior + judged.right
        bad = PRIOR_WEIGHT * (1 - prior) + judged.wrong
        if draws is None:
            return good / (good + bad)
        narrow = CONCENTRATION if arm.members else 1.0
        return float(draws.beta(narrow * good, narrow * bad))

    def gain(self, members: Sequence[str]) -> float:
        """Return the gain of a vote over its best member: the expected gain, combined with the results of
        votes that differed from their most trusted voter."""
        if self.trust.prefers_best:  # the best member is then asked alone
            return 0.0
        counts, vote_vs_best = self._models, self.trust.vote_vs_best
        expected = gain_together({name: counts[name].right / counts[name].total for name in members})
        votes = vote_vs_best.total / DIFFERING_VOTES
        return (GAIN_WEIGHT * expected + vote_vs_best.right - vote_vs_best.wrong) / (GAIN_WEIGHT + votes)


def _beside(best: float, prior: float) -> float:
    """Return the share of a team that has `prior` if its best model has `SINGLE_PRIOR`, for a best model with
    share `best`."""
    share = min(0.99, max(0.01, best))
    odds = share / (1 - share) * (prior / (1 - prior)) / (SINGLE_PRIOR / (1 - SINGLE_PRIOR))
    return odds / (1 + odds)
