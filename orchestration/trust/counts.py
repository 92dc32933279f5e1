"""Counts of right and wrong observations, with older observations discounted."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from pydantic import BaseModel, ConfigDict, Field

DISCOUNT = 0.995
"""The factor by which earlier observations are multiplied at each new one. About the latest 200 count, so a
model that was replaced under the same name is soon judged by its own answers (discounted Thompson sampling,
Raj and Kalyani 2017, arXiv:1707.09727)."""
LEVEL_Z = 1.96
"""The normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True)
class ShareEstimate:
    """The mean of a Beta distribution, with an approximate 95 % interval."""

    mean: float
    low: float
    high: float


class Counts(BaseModel):
    """How many observations were right and wrong; one that was partly right adds to both."""

    model_config = ConfigDict(frozen=True)

    right: float = Field(default=0, ge=0, allow_inf_nan=False)
    wrong: float = Field(default=0, ge=0, allow_inf_nan=False)

    @property
    def total(self) -> float:
        return self.right + self.wrong

    def plus(self, right: float, wrong: float, discount: float = 1.0) -> Counts:
        """Return the sum with new observations; the earlier ones are multiplied by `discount`."""
        return Counts(
            right=max(0.0, discount * self.right + right), wrong=max(0.0, discount * self.wrong + wrong)
        )

    def shifted(self, amount: float) -> Counts:
        """Return the counts with `amount` moved from wrong to right, or back if it is negative, as far as
        there are some. Used when a rating replaces another: the total stays the same."""
        right = min(max(0.0, self.right + amount), self.total)
        return Counts(right=right, wrong=self.total - right)

    def scaled(self, weight: float) -> Counts:
        return Counts(right=weight * self.right, wrong=weight * self.wrong)

    def share(self, prior: float, strength: float) -> ShareEstimate:
        """Estimate the share of right observations. `prior` is the share expected without any, and counts as
        much as `strength` observations."""
        right, total = prior * strength + self.right, strength + self.total
        mean = right / total
        half = LEVEL_Z * sqrt(mean * (1 - mean) / (total + 1))
        return ShareEstimate(mean, max(0.0, mean - half), min(1.0, mean + half))
