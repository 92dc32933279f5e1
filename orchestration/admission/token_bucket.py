"""Tokens per minute: a bucket that fills steadily and is drawn from before the work begins."""

from __future__ import annotations


class TokenBucket:
    """Holds up to `per_minute` tokens, full at first, and regains them over one minute.

    As long as nobody settles for more than was reserved, `level` never falls below 0: what is spent between
    two moments is at most `per_minute` plus what flowed in between them (the leaky bucket of ITU-T I.371).
    Whoever does settle for more leaves a debt, which those who come next wait out.
    """

    __slots__ = ("_level", "_then", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._then = now

    def level(self, now: float) -> float:
        """Tokens there now; negative while a debt is paid off."""
        if now > self._then:
            flowed = (now - self._then) * self.per_minute / 60
            self._level = min(float(self.per_minute), self._level + flowed)
            self._then = now
        return self._level

    def wait_s(self, tokens: int, now: float) -> float:
        """Seconds until `tokens` can be taken, 0 for now, infinity for more than it can ever hold."""
        if tokens > self.per_minute:
            return float("inf")
        return max(0.0, tokens - self.level(now)) * 60 / self.per_minute

    def take(self, tokens: int, now: float) -> None:
        """Take what `wait_s` said was there."""
        self._level = self.level(now) - tokens

    def give_back(self, tokens: int, now: float) -> None:
        """Return what was taken and not used; a negative number takes what was used beyond it."""
        self._level = min(float(self.per_minute), self.level(now) + tokens)
