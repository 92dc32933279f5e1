"""Tokens per minute: a bucket that refills steadily, and pays before the work starts."""

from __future__ import annotations


class TokenBucket:
    """Holds up to `per_minute` tokens, full at first, and regains them over one minute.

    Between two moments at most `per_minute` tokens are spent, plus those that flowed in (the leaky bucket of
    ITU-T I.371). If a request uses more than it reserved, `level` falls below 0: that debt delays the next
    requests.

    A gateway that shares a limit fills its bucket from the common ledger (`refills` is False); `unclaimed` is
    what the ledger had left when it was last read.
    """

    __slots__ = ("_level", "_then", "per_minute", "refills", "unclaimed")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._then = now
        self.refills = True
        self.unclaimed = 0.0

    def level(self, now: float) -> float:
        """The tokens in the bucket now; negative for a debt."""
        if now > self._then:
            if self.refills:
                flowed = (now - self._then) * self.per_minute / 60
                self._level = min(float(self.per_minute), self._level + flowed)
            self._then = now
        return self._level

    def with_unclaimed(self, now: float) -> float:
        """The tokens in the bucket now, and the unclaimed ones in the ledger."""
        return self.level(now) + self.unclaimed

    def drain(self, now: float) -> float:
        """Take all tokens, or the debt, and stop refilling. Returns them."""
        level, self._level, self.refills = self.level(now), 0.0, False
        return level

    def change_size(self, per_minute: int, now: float) -> None:
        """Hold and refill another number of tokens. A larger bucket that refills has the added ones at once;
        a smaller one has at most `per_minute`."""
        level, added = self.level(now), per_minute - self.per_minute
        self.per_minute = per_minute
        self._level = level + added if added > 0 and self.refills else min(level, float(per_minute))

    def refill(self, tokens: float, now: float) -> None:
        """Add `tokens`, and refill from now on."""
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
        """Take tokens; call it when `wait_s` returned 0."""
        self._level = self.level(now) - tokens

    def give_back(self, tokens: float, now: float) -> None:
        """Return unused tokens; a negative number takes those used beyond the reservation."""
        self._level = min(float(self.per_minute), self.level(now) + tokens)
