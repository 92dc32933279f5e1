"""Intervals and tests for shares from few questions. Results depend on the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import comb
from statistics import NormalDist

import numpy as np

DRAWS = 10_000
"""Bootstrap samples."""
LEVEL = 0.95
"""The confidence level of intervals and tests."""
_MAX_DRAWN_NUMBERS = 1 << 20
"""Numbers drawn per batch, which bounds the memory for many questions."""
_FEW_VALUES = 16
"""Up to this many different values, samples are drawn by counts: 100,000 questions then take milliseconds,
not minutes."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and an interval that holds the true mean with probability `LEVEL`."""

    mean: float
    low: float
    high: float


class ComparisonVerdict(StrEnum):
    """The result of a comparison."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"
    """Neither is shown: there may be no difference, or too few questions to detect it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between two results on the same questions: the first minus the second."""

    interval: Interval
    wins: int
    """Questions on which the first was better."""
    losses: int
    """Questions on which the first was worse."""
    p_value: float
    """The p-value of a two-sided sign test."""

    @property
    def verdict(self) -> ComparisonVerdict:
        """A difference is shown if both the interval and the sign test show it. The interval alone is too
        narrow if the two differ on few questions only."""
        if self.p_value > 1 - LEVEL:
            return ComparisonVerdict.OPEN
        if self.interval.low > 0:
            return ComparisonVerdict.BETTER
        return ComparisonVerdict.WORSE if self.interval.high < 0 else ComparisonVerdict.OPEN


def mean_interval(
    values: Sequence[float], *, lowest: float = 0.0, highest: float = 1.0, seed: int = 0
) -> Interval:
    """Return the mean of `values`, which lie between `lowest` and `highest`, with its bootstrap percentile
    interval (Efron, The Annals of Statistics 7, 1979).

    If all values are equal, a bootstrap shows no spread. Then the bounds assume the worst outcome for the
    largest share that may be unseen (Wilson, JASA 22, 1927: z² / (n + z²)). Raises `ValueError` without
    values.
    """
    if not values:
        raise ValueError("cannot average without values")
    known = np.asarray(values, dtype=np.float64)
    mean = float(known.mean())
    if np.ptp(known) == 0:
        z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
        unseen = z * z / (len(values) + z * z)
        return Interval(mean, mean - unseen * (mean - lowest), mean + unseen * (highest - mean))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(_means(known, seed), (tail, 1 - tail))
    return Interval(mean, float(low), float(high))


def difference(ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0) -> Difference:
    """Compare two lists of values between 0 and 1 for the same questions. Questions are resampled in pairs,
    so that their difficulty does not add noise. Raises `ValueError` if there are none or the lengths
    differ."""
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    interval = mean_interval(differences, lowest=-1.0, highest=1.0, seed=seed)
    wins = sum(each > 0 for each in differences)
    losses = sum(each < 0 for each in differences)
    return Difference(interval, wins, losses, sign_test(wins, losses))


def sign_test(wins: int, losses: int) -> float:
    """Return the probability of a split at least this uneven if both sides are equally likely (two-sided,
    exact). For right and wrong answers this is McNemar's exact test."""
    decided = wins + losses
    fewer = min(wins, losses)
    tail = sum(comb(decided, each) for each in range(fewer + 1))
    return min(1.0, tail / 2 ** (decided - 1)) if decided else 1.0


def _means(values: np.ndarray[tuple[int], np.dtype[np.float64]], seed: int) -> list[float]:
    """Return the means of `DRAWS` samples with replacement."""
    random = np.random.default_rng(seed)
    count = len(values)
    different, times = np.unique(values, return_counts=True)
    if len(different) <= _FEW_VALUES:
        drawn = random.multinomial(count, times / count, size=DRAWS)
        return list((drawn @ different / count).tolist())
    rows = max(1, _MAX_DRAWN_NUMBERS // count)
    means: list[float] = []
    while len(means) < DRAWS:
        drawn = random.integers(0, count, size=(min(rows, DRAWS - len(means)), count))
        means += values[drawn].mean(axis=1).tolist()
    return means
