"""A circuit breaker for one model on one node: it keeps work away from what keeps failing.

    closed ──too many calls failed, or were slow──▶ open ──the dwell is over──▶ half-open
       ▲                                             ▲                             │
       └───────────────the probe went well───────────┼──────────the probe failed───┘

Half-open lets a single call through. It trips however few nodes there are: what waits for a node that
recovers is better off in the queue than in the next failure. After Nygard, "Release It!", chapter 5; the
jitter of the dwell keeps many dispatchers from probing at the same moment.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from random import Random

from pydantic import BaseModel, ConfigDict, Field


class BreakerSettings(BaseModel):
    """When a breaker trips, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_s: float = Field(default=30, gt=0)
    """Older calls are forgotten."""
    window_calls: int = Field(default=64, ge=1, le=1024)
    """So are those before the newest so many."""
    min_calls: int = Field(default=5, ge=1, le=1024)
    """Fewer say nothing."""
    error_share: float = Field(default=0.5, gt=0, le=1)
    slow_share: float = Field(default=0.8, gt=0, le=1)
    slow_factor: float = Field(default=8, gt=1)
    """A call is slow when it took so many times what was expected of it…"""
    slow_s: float = Field(default=5, ge=0)
    """…and at least so long."""
    dwell_s: float = Field(default=1, gt=0)
    """Open for so long at first; twice as long after each failed probe."""
    max_dwell_s: float = Field(default=30, gt=0)
    jitter: float = Field(default=0.25, ge=0, lt=1)
    """A dwell is drawn from this share below to this share above."""


class Outcome(StrEnum):
    """How a call went, as far as it says something about the node."""

    WELL = "well"
    SLOW = "slow"
    FAILED = "failed"
    UNTOLD = "untold"
    """The caller's own doing, or a node that was merely busy: says nothing."""


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Times are seconds on any clock that never goes back."""

    def __init__(self, settings: BreakerSettings, draw: Random) -> None:
        self.settings = settings
        self.probing = False
        self.until = 0.0
        """When the dwell ends; 0 while closed."""
        self._draw = draw
        self._dwell = settings.dwell_s
        self._calls: deque[tuple[float, Outcome]] = deque(maxlen=settings.window_calls)

    def state(self, now: float) -> State:
        if not self.until:
            return State.CLOSED
        return State.OPEN if now < self.until else State.HALF_OPEN

    def allows(self, now: float) -> bool:
        """Whether one more call may go there."""
        return not self.until or (now >= self.until and not self.probing)

    def begin(self, now: float) -> bool:
        """A call that `allows` let through begins; True when it is the probe. Give that to `end`."""
        if not self.until:
            return False
        self.probing = True
        return True

    def end(self, outcome: Outcome, now: float, *, probe: bool) -> None:
        """The call ended."""
        if probe:
            self.probing = False
            if outcome is Outcome.FAILED or outcome is Outcome.SLOW:
                self._dwell = min(self._dwell * 2, self.settings.max_dwell_s)
                self._open(now)
            elif outcome is Outcome.WELL:
                self.until, self._dwell = 0.0, self.settings.dwell_s
                self._calls.clear()
            return
        if self.until or outcome is Outcome.UNTOLD:  # begun before it tripped: only the probe decides
            return
        self._calls.append((now, outcome))
        if outcome is not Outcome.WELL and self._too_many(now):
            self._open(now)

    def _too_many(self, now: float) -> bool:
        since = now - self.settings.window_s
        recent = [outcome for at, outcome in self._calls if at >= since]
        if len(recent) < self.settings.min_calls:
            return False
        failed, slow = recent.count(Outcome.FAILED), recent.count(Outcome.SLOW)
        return failed >= self.settings.error_share * len(
            recent
        ) or failed + slow >= self.settings.slow_share * len(recent)

    def _open(self, now: float) -> None:
        jitter = self.settings.jitter
        self.until = now + self._dwell * self._draw.uniform(1 - jitter, 1 + jitter)
        self._calls.clear()
