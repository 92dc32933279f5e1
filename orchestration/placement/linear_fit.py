"""Fits a straight line to the newest of many measurements."""

from __future__ import annotations

from dataclasses import dataclass

HALF_LIFE = 32.0
"""Number of newer measurements after which a measurement counts half."""
_SPREAD = 0.05
"""Minimum standard deviation of x, as a share of its mean, for a slope to be fitted."""


@dataclass(slots=True)
class LinearFit:
    """`y = base + slope * x` by exponentially weighted least squares; neither is negative.

    Only weighted sums are kept, so a measurement costs a few additions.
    """

    decay: float = 0.5 ** (1 / HALF_LIFE)
    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, x: float, y: float) -> None:
        decay = self.decay
        self.weight = self.weight * decay + 1
        self.x = self.x * decay + x
        self.y = self.y * decay + y
        self.xx = self.xx * decay + x * x
        self.xy = self.xy * decay + x * y

    def fitted(self) -> tuple[float, float]:
        """Base and slope. A flat line through the mean when x varies too little, zeros without data."""
        if not self.weight:
            return 0.0, 0.0
        x, y = self.x / self.weight, self.y / self.weight
        variance = self.xx / self.weight - x * x
        if variance <= (_SPREAD * x) ** 2 or variance <= 1e-12:
            return max(0.0, y), 0.0
        slope = (self.xy / self.weight - x * y) / variance
        if slope <= 0:
            return max(0.0, y), 0.0
        base = y - slope * x
        return (base, slope) if base >= 0 else (0.0, y / x)
