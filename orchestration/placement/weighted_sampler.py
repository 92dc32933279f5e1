"""Draws from many items by weight, while the weights change."""

from __future__ import annotations

from random import Random


class WeightedSampler:
    """A Fenwick tree over the weights of places 0, 1, 2…

    Setting a weight and drawing take log2(n) steps each, 14 for 10,000 places. Fenwick, "A new data structure
    for cumulative frequency tables" (1994).
    """

    def __init__(self) -> None:
        self.weights: list[float] = []
        self.count = 0
        """The number of places with a weight above 0."""
        self._sums: list[float] = [0.0]
        self._top = 1
        self._total = 0.0

    def grow(self) -> int:
        """Add a place of weight 0; returns its number."""
        place = len(self.weights)
        self.weights.append(0.0)
        at = place + 1
        below, total = at - 1, 0.0
        while below > at - (at & -at):
            total += self._sums[below]
            below -= below & -below
        self._sums.append(total)
        while self._top * 2 <= at:
            self._top *= 2
        return place

    def set(self, place: int, weight: float) -> None:
        """Set the weight of a place; a place of weight 0 is never drawn."""
        delta = weight - self.weights[place]
        if not delta:
            return
        self.count += (weight > 0) - (self.weights[place] > 0)
        self.weights[place] = weight
        self._total = self._total + delta if self.count else 0.0
        sums = self._sums
        at, size = place + 1, len(sums)
        while at < size:
            sums[at] += delta
            at += at & -at

    def draw(self, random: Random) -> int | None:
        """A place, drawn in proportion to its weight; None when all weights are 0."""
        if not self.count:
            return None
        left = random.random() * self._total
        sums, size = self._sums, len(self._sums)
        at, step = 0, self._top
        while step:
            next_at = at + step
            if next_at < size and sums[next_at] <= left:
                at = next_at
                left -= sums[next_at]
            step >>= 1
        weights = self.weights
        if at < len(weights) and weights[at] > 0:
            return at
        # Rounding errors of the sums may lead past the end: take the next place that has a weight.
        beyond = range(min(at, len(weights)), len(weights))
        found = next((place for place in beyond if weights[place] > 0), None)
        if found is None:
            found = next(place for place in reversed(range(len(weights))) if weights[place] > 0)
        return found
