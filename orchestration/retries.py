"""What becomes of a job after an attempt failed: settled, tried again after a pause, or given up. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestration.errors import (
    BackendFailed,
    DeadlineExceeded,
    NodeLost,
    OrchestraError,
    Overloaded,
    Unavailable,
    UnknownModel,
)


class Fate(StrEnum):
    """Of a job whose attempt failed."""

    SETTLE = "settle"
    """The error is the answer: another attempt would end the same way."""
    RETRY = "retry"
    """The attempt counts, and there is another."""
    WAIT = "wait"
    """Nobody could have done it just now: the attempt does not count."""
    BURY = "bury"
    """Given up, for a person to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """At most `attempts` that count, `first_s` seconds before the second, twice as long before each next one
    up to `longest_s`. While nothing can serve a job it is offered every `outage_s` seconds, `patience_s`
    seconds after it was submitted for the last time."""

    attempts: int = 5
    first_s: float = 1.0
    longest_s: float = 60.0
    outage_s: float = 5.0
    patience_s: float = 86_400.0

    def pause_s(self, attempts: int) -> float:
        """Seconds before the attempt after `attempts` (1 or more) of them."""
        return float(min(self.longest_s, self.first_s * 2 ** min(attempts - 1, 32)))

    def fate(self, error: OrchestraError, *, attempts: int, age_s: float) -> tuple[Fate, float]:
        """Of a job that is `age_s` seconds old and failed with `error` in its attempt number `attempts`;
        and the seconds to pause before the next.

        A node's death counts, since the job may be what kills it. An unknown model does not: it was there
        when the job was submitted, so its nodes are away.
        """
        if isinstance(error, NodeLost | BackendFailed | DeadlineExceeded):
            if attempts >= self.attempts:
                return Fate.BURY, 0.0
            return Fate.RETRY, self.pause_s(attempts)
        if isinstance(error, Unavailable | Overloaded | UnknownModel):
            if age_s >= self.patience_s:
                return Fate.BURY, 0.0
            return Fate.WAIT, max(self.outage_s, error.retry_after_s or 0.0)
        return Fate.SETTLE, 0.0
