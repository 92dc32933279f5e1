"""How often something was right, with old observations fading."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from pydantic import BaseModel, ConfigDict, Field

DISCOUNT = 0.995
"""Of all earlier observations, at each new one: about the latest 200 count, so that a model that was replaced
is judged anew (discounted Thompson sampling, Raj and Kalyani 2017, arXiv:1707.09727)."""
LEVEL_Z = 1.96
"""Of an interval that holds the true share with a probability of 95 %."""


@dataclass(frozen=True, slots=True)
class ShareEstimate:
    """The mean of a Beta distribution, and the interval that holds 95 % of it, about."""

    mean: float
    low: float
    high: float


class Counts(BaseModel):
    """Observations that were right and wrong; parts of one where it was partly so."""

    model_config = ConfigDict(frozen=True)

    right: float = Field(default=0, ge=0, allow_inf_nan=False)
    wrong: float = Field(default=0, ge=0, allow_inf_nan=False)

    @property
    def total(self) -> float:
        return self.right + self.wrong

    def plus(self, right: float, wrong: float, discount: float = 1.0) -> Counts:
        """With new observations; `discount` is the share of the earlier ones that still counts."""
        return Counts(
            right=max(0.0, discount * self.right + right), wrong=max(0.0, discount * self.wrong + wrong)
        )

    def shifted(self, more: float) -> Counts:
        """With `more` of the wrong ones right, or back where it is negative, as far as there are some: for a
        word that replaces another, which must not add to what was observed."""
        right = min(max(0.0, self.right + more), self.total)
        return Counts(right=right, wrong=self.total - right)

    def scaled(self, weight: float) -> Counts:
        return Counts(right=weight * self.right, wrong=weight * self.wrong)

    def share(self, prior: float, strength: float) -> ShareEstimate:
        """The share of right ones, where it was thought to be `prior` as surely as after `strength`
        observations."""
        right, total = prior * strength + self.right, strength + self.total
        mean = right / total
        half = LEVEL_Z * sqrt(mean * (1 - mean) / (total + 1))
        return ShareEstimate(mean, max(0.0, mean - half), min(1.0, mean + half))
