"""Limits retries to a share of the traffic, so that a failing model does not get a storm of retries."""

from __future__ import annotations


class RetryBudget:
    """Every request adds `share`, every retry takes 1; at most `reserve` is saved.

    The token bucket of Finagle's `RetryBudget` without its clock: traffic counts, not time. It starts full,
    so that a quiet cluster may retry at once.
    """

    def __init__(self, *, share: float, reserve: float) -> None:
        if share < 0 or reserve < 0:
            raise ValueError(f"share {share} and reserve {reserve} must not be negative")
        self.share = share
        self.reserve = reserve
        self.balance = reserve

    def resize(self, *, share: float, reserve: float) -> None:
        """Use another share and another reserve from now on."""
        self.share, self.reserve = share, reserve
        self.balance = min(self.balance, reserve)

    def deposit(self) -> None:
        """Count a request."""
        self.balance = min(self.reserve, self.balance + self.share)

    def withdraw(self) -> bool:
        """Take one retry; False when the budget is used up."""
        if self.balance < 1:
            return False
        self.balance -= 1
        return True

    def give_back(self) -> None:
        """Return a retry that was taken but not made."""
        self.balance = min(self.reserve, self.balance + 1)
