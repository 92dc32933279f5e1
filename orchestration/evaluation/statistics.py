"""How sure a share and a difference of shares are, from few questions. All of it is decided by its seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import comb
from statistics import NormalDist

import numpy as np

DRAWS = 10_000
LEVEL = 0.95
_MAX_DRAWN_NUMBERS = 1 << 20
"""Numbers drawn at once, so that many questions do not need much memory."""
_FEW_VALUES = 16
"""Different values: the draws of 100,000 questions then take milliseconds instead of minutes."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and the interval that holds the true one with a probability of `LEVEL`."""

    mean: float
    low: float
    high: float


class ComparisonVerdict(StrEnum):
    """What a comparison shows."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"
    """Neither: there may be no difference, or too few questions to see it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two who answered the same questions: the first's mean less the second's. `p_value` is that of a
    sign test; `wins` and `losses` count the questions on which the first did better and worse."""

    interval: Interval
    wins: int
    losses: int
    p_value: float

    @property
    def verdict(self) -> ComparisonVerdict:
        """Shown is what both the interval and the sign test say: the interval alone is too narrow where few
        questions tell the two apart."""
        if self.p_value > 1 - LEVEL:
            return ComparisonVerdict.OPEN
        if self.interval.low > 0:
            return ComparisonVerdict.BETTER
        return ComparisonVerdict.WORSE if self.interval.high < 0 else ComparisonVerdict.OPEN


def mean_interval(
    values: Sequence[float], *, lowest: float = 0.0, highest: float = 1.0, seed: int = 0
) -> Interval:
    """The mean of `values`, which lie between `lowest` and `highest`, with its bootstrap percentile interval
    (Efron, The Annals of Statistics 7, 1979).

    A bootstrap of values that are all the same knows no spread. Then the bounds are those up to which
    outcomes that were never seen may still occur (Wilson, JASA 22, 1927: z² / (n + z²)), at their worst.
    Raises `ValueError` without values.
    """
    if not values:
        raise ValueError("no values, no mean")
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
    """Of the values that two got on the same questions, each between 0 and 1: resampled by question, so that
    how hard a question is does not blur it. Raises `ValueError` where there are none, or not as many."""
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    interval = mean_interval(differences, lowest=-1.0, highest=1.0, seed=seed)
    wins = sum(each > 0 for each in differences)
    losses = sum(each < 0 for each in differences)
    return Difference(interval, wins, losses, sign_test(wins, losses))


def sign_test(wins: int, losses: int) -> float:
    """How likely so uneven a split is where both are as likely: exact, of both sides. For right and wrong
    answers it is McNemar's exact test."""
    told_apart = wins + losses
    fewer = min(wins, losses)
    tail = sum(comb(told_apart, each) for each in range(fewer + 1))
    return min(1.0, tail / 2 ** (told_apart - 1)) if told_apart else 1.0


def _means(values: np.ndarray[tuple[int], np.dtype[np.float64]], seed: int) -> list[float]:
    """Of `DRAWS` samples, drawn with replacement: of few different values by their counts."""
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
