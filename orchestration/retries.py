"""Decides what to do with a job after a failed attempt: fail it, try again after a pause, or give it up."""

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
    """Complete the job with the error: another attempt would end the same way."""
    RETRY = "retry"
    """Try again; the attempt counts."""
    WAIT = "wait"
    """Try again; the attempt does not count, because no node could serve the job."""
    DEAD_LETTER = "dead_letter"
    """Give the job up; a person may retry it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Decides when a job is tried again, and after which pause.

    The pause doubles with each attempt that counts, from `first_pause_s` up to `max_pause_s`. While no node
    can serve the job, it is tried every `outage_pause_s`, until it is `max_age_s` seconds old.
    """

    max_attempts: int = 5
    first_pause_s: float = 1.0
    max_pause_s: float = 60.0
    outage_pause_s: float = 5.0
    max_age_s: float = 86_400.0

    def pause_s(self, attempts: int) -> float:
        """The pause after `attempts` (1 or more) failed attempts, in seconds."""
        return float(min(self.max_pause_s, self.first_pause_s * 2 ** min(attempts - 1, 32)))

    def decide(self, error: OrchestraError, *, attempts: int, age_s: float) -> tuple[RetryDecision, float]:
        """Return the decision and the pause in seconds, after attempt number `attempts` failed with `error`.

        `age_s` is the time since the job was submitted. A node's death counts as an attempt, since the job
        may be its cause. An unknown model does not count: it existed when the job was submitted, so its nodes
        are away.
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
