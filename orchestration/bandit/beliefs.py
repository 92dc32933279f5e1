"""How good each way to answer is thought to be: by what is known of its models, and of the way itself.

Where one model answers alone, the share of good answers is how often that model is right, so that every vote
and every word on any answer of it counts. A panel's is that of its best member and what a vote gains on it,
which says more, of the same questions, than the judgements of either. Other teams begin from what is thought
of them beside one model; judgements of their own go over that.
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
"""Judgements that a prior counts as: ten of a user turn it."""
GAIN_WEIGHT, DIFFERING_VOTES = 400.0, 0.1
"""Judged votes that the expected gain of a panel counts as, and the share of votes that differ from their
most trusted voter's answer, about: that gain is known to 1.5 points beforehand, and 400 judged votes tell it
as well."""
CONCENTRATION = 4.0
"""How much surer draws are than what is known: a draw as wide as the doubt takes the second best of several
models on every third run, for years, and what is in doubt is learnt by asking several."""
HORIZON = 200
"""Questions for which what is learnt now is of use: what records remember."""
DRAWS = 400


@dataclass(frozen=True)
class Beliefs:
    """Of `arms`."""

    arms: Sequence[Arm]
    record: KindRecord
    trust: Trust

    @property
    def means(self) -> list[float]:
        """The share of good answers expected of each arm."""
        shares = {model: counts.right / counts.total for model, counts in self._models.items()}
        return [self._share(arm, shares, None) for arm in self.arms]

    def drawn(self, draws: np.random.Generator) -> list[float]:
        """A share for each arm, drawn from what is known."""
        shares = {
            model: float(draws.beta(CONCENTRATION * counts.right, CONCENTRATION * counts.wrong))
            for model, counts in self._models.items()
        }
        return [self._share(arm, shares, draws) for arm in self.arms]

    def learning(self, draws: np.random.Generator) -> float:
        """What the answers of several models to one question are worth beside the answer itself, as a share
        of right answers: how much better the best model may be than the one that is thought best, times how
        far one more answer of each narrows that, over the questions to come."""
        alone = [self._models[arm.model] for arm in self.arms if arm.model]
        if not self.trust.learns:
            return 0.0
        right, wrong = ([getattr(counts, side) for counts in alone] for side in ("right", "wrong"))
        shares = draws.beta(right, wrong, (DRAWS, len(alone)))
        regret = float(shares.max(axis=1).mean() - shares.mean(axis=0).max())
        known = sum(counts.total for counts in alone) / len(alone)
        return HORIZON * max(0.0, regret) * SOURCE_WEIGHTS["vote"] / (2 * known)

    def best_of(self, models: Sequence[str]) -> str:
        """The one that is most often right."""
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
        tally = self.record.arm(arm.name)
        good = PRIOR_WEIGHT * prior + tally.right
        bad = PRIOR_WEIGHT * (1 - prior) + tally.wrong
        if draws is None:
            return good / (good + bad)
        narrow = CONCENTRATION if arm.members else 1.0
        return float(draws.beta(narrow * good, narrow * bad))

    def gain(self, members: Sequence[str]) -> float:
        """What a vote of the members gains on the best of them: what is expected of models that are right so
        often, and what was seen where votes and their most trusted voters differed."""
        if self.trust.prefers_best:  # who is asked alone then
            return 0.0
        counts, vote_vs_best = self._models, self.trust.vote_vs_best
        expected = gain_together({name: counts[name].right / counts[name].total for name in members})
        votes = vote_vs_best.total / DIFFERING_VOTES
        return (GAIN_WEIGHT * expected + vote_vs_best.right - vote_vs_best.wrong) / (GAIN_WEIGHT + votes)


def _beside(best: float, prior: float) -> float:
    """The share of a team that has `prior` where the best of its models alone has `SINGLE_PRIOR`."""
    share = min(0.99, max(0.01, best))
    odds = share / (1 - share) * (prior / (1 - prior)) / (SINGLE_PRIOR / (1 - SINGLE_PRIOR))
    return odds / (1 + odds)
