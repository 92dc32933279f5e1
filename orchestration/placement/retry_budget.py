"""How much of the traffic may be retries, so that a sick model gets no storm of them on top."""

from __future__ import annotations


class RetryBudget:
    """Every request pays in `share`, every retry takes out one; at most `reserve` is saved up.

    The token bucket of Finagle's `RetryBudget` without its clock: what counts is traffic, not time. It
    starts full, so that a quiet cluster may retry at once.
    """

    def __init__(self, *, share: float, reserve: float) -> None:
        if share < 0 or reserve < 0:
            raise ValueError(f"share {share} and reserve {reserve} must not be negative")
        self.share = share
        self.reserve = reserve
        self.balance = reserve

    def deposit(self) -> None:
        """A request came."""
        self.balance = min(self.reserve, self.balance + self.share)

    def withdraw(self) -> bool:
        """Whether one retry may be made; it is paid for then."""
        if self.balance < 1:
            return False
        self.balance -= 1
        return True

    def give_back(self) -> None:
        """A retry that was paid for was not made."""
        self.balance = min(self.reserve, self.balance + 1)
