"""Tokens per minute: a bucket that fills steadily and is drawn from before the work begins."""

from __future__ import annotations


class TokenBucket:
    """Holds up to `per_minute` tokens, full at first, and regains them over one minute.

    As long as nobody settles for more than was reserved, `level` never falls below 0: what is spent between
    two moments is at most `per_minute` plus what flowed in between them (the leaky bucket of ITU-T I.371).
    Whoever does settle for more leaves a debt, which those who come next wait out.

    One of several buckets that are filled out of a common one does not fill by itself (`refills` is False);
    `unclaimed` is what was left in the common one when it was last seen.
    """

    __slots__ = ("_level", "_then", "per_minute", "refills", "unclaimed")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._then = now
        self.refills = True
        self.unclaimed = 0.0

    def level(self, now: float) -> float:
        """Tokens there now; negative while a debt is paid off."""
        if now > self._then:
            if self.refills:
                flowed = (now - self._then) * self.per_minute / 60
                self._level = min(float(self.per_minute), self._level + flowed)
            self._then = now
        return self._level

    def with_unclaimed(self, now: float) -> float:
        """Tokens there now, and those that were seen elsewhere."""
        return self.level(now) + self.unclaimed

    def drain(self, now: float) -> float:
        """Take all that is there, also a debt, and have it filled by hand from now on. Returns it."""
        level, self._level, self.refills = self.level(now), 0.0, False
        return level

    def refill(self, tokens: float, now: float) -> None:
        """Put `tokens` to what is there, and have it fill by itself from now on."""
        self.give_back(tokens, now)
        self.refills, self.unclaimed = True, 0.0

    def wait_s(self, tokens: int, now: float) -> float:
        """Seconds until `tokens` can be taken, 0 for now, infinity for more than it can ever hold."""
        if tokens > self.per_minute:
            return float("inf")
        short = tokens - self.level(now)
        if short <= 0:
            return 0.0
        return max(1e-3, short - self.unclaimed) * 60 / self.per_minute

    def take(self, tokens: float, now: float) -> None:
        """Take what `wait_s` said was there."""
        self._level = self.level(now) - tokens

    def give_back(self, tokens: float, now: float) -> None:
        """Return what was taken and not used; a negative number takes what was used beyond it."""
        self._level = min(float(self.per_minute), self.level(now) + tokens)
