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


class RetryDecision(StrEnum):
    """What to do with a job whose attempt failed."""

    FAIL = "fail"
    """The error is the answer: another attempt would end the same way."""
    RETRY = "retry"
    """The attempt counts, and there is another."""
    WAIT = "wait"
    """Nobody could have done it just now: the attempt does not count."""
    DEAD_LETTER = "dead_letter"
    """Given up, for a person to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """At most `max_attempts` that count, `first_pause_s` seconds before the second, twice as long before each
    next one up to `max_pause_s`. While nothing can serve a job it is offered every `outage_pause_s` seconds,
    `max_age_s` seconds after it was submitted for the last time."""

    max_attempts: int = 5
    first_pause_s: float = 1.0
    max_pause_s: float = 60.0
    outage_pause_s: float = 5.0
    max_age_s: float = 86_400.0

    def pause_s(self, attempts: int) -> float:
        """Seconds before the attempt after `attempts` (1 or more) of them."""
        return float(min(self.max_pause_s, self.first_pause_s * 2 ** min(attempts - 1, 32)))

    def decide(self, error: OrchestraError, *, attempts: int, age_s: float) -> tuple[RetryDecision, float]:
        """Of a job that is `age_s` seconds old and failed with `error` in its attempt number `attempts`;
        and the seconds to pause before the next.

        A node's death counts, since the job may be what kills it. An unknown model does not: it was there
        when the job was submitted, so its nodes are away.
        """
        if isinstance(error, NodeLost | BackendFailed | DeadlineExceeded):
            if attempts >= self.max_attempts:
                return RetryDecision.DEAD_LETTER, 0.0
            return RetryDecision.RETRY, self.pause_s(attempts)
        if isinstance(error, Unavailable | Overloaded | UnknownModel):
            if age_s >= self.max_age_s:
                return RetryDecision.DEAD_LETTER, 0.0
            return RetryDecision.WAIT, max(self.outage_pause_s, error.retry_after_s or 0.0)
        return RetryDecision.FAIL, 0.0
