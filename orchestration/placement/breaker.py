"""A circuit breaker for one model on one node: it stops work to a model that keeps failing.

    closed ──too many calls failed, or were slow──▶ open ──the dwell is over──▶ half-open
       ▲                                             ▲                             │
       └───────────────the probe went well───────────┼──────────the probe failed───┘

A single call opens it at once when it gave no output, or when its server refused work, for as long as the
server asks. A server that answered other calls just before has reached a limit and is not down: then the
breaker closes again without a probe.

A half-open breaker lets one call through, the probe. It opens however few nodes there are: a generation that
waits is better off in the queue than in the next failure. After Nygard, "Release It!", chapter 5; the jitter
of the dwell keeps dispatchers from probing at the same moment.
"""

from __future__ import annotations

import math
from collections import deque
from enum import StrEnum
from random import Random

from pydantic import BaseModel, ConfigDict, Field


class BreakerSettings(BaseModel):
    """The circuit breaker of a node and model: when it opens, so that the node gets no generations of the
    model, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_s: float = Field(default=30, gt=0)
    """Age after which a call no longer counts."""
    window_calls: int = Field(default=64, ge=1, le=1024)
    """Maximum calls that count, the most recent ones."""
    min_calls: int = Field(default=5, ge=1, le=1024)
    """Minimum calls in the window; with fewer a breaker does not open for errors or slowness."""
    error_share: float = Field(default=0.5, gt=0, le=1)
    """Share of failed calls at which the breaker opens."""
    slow_share: float = Field(default=0.8, gt=0, le=1)
    """Share of failed and slow calls together at which the breaker opens."""
    slow_factor: float = Field(default=8, gt=1)
    """A call is slow when it took this many times its expected duration, and at least `slow_s`."""
    slow_s: float = Field(default=5, ge=0)
    """Minimum duration of a slow call."""
    dwell_s: float = Field(default=1, gt=0)
    """Time for which a breaker opens first; it doubles after each failed probe."""
    max_dwell_s: float = Field(default=30, gt=0)
    """Maximum of that time."""
    max_hold_s: float = Field(default=300, gt=0)
    """Maximum time for which a breaker obeys a server's `Retry-After`."""
    hung_s: float = Field(default=10, gt=0)
    """Minimum time for which a breaker opens after a call without any output, if no call within `window_s`
    succeeded."""
    max_refusals: int = Field(default=4, ge=1)
    """Maximum refusals with `Retry-After` in a row, for each node of a model; then generations that wait for
    these nodes fail."""
    jitter: float = Field(default=0.25, ge=0, lt=1)
    """Share by which the open time varies at random, up and down."""


class Outcome(StrEnum):
    """How a call ended, as far as that says something about the node."""

    SUCCEEDED = "well"
    SLOW = "slow"
    FAILED = "failed"
    HUNG = "hung"
    """No output came in time."""
    LIMITED = "limited"
    """The node's server refused work for now."""
    UNKNOWN = "untold"
    """Says nothing about the node: the caller's own doing, or a node that was only busy."""


_OPENS_AT_ONCE = (Outcome.HUNG, Outcome.LIMITED)
_BAD = (Outcome.FAILED, Outcome.SLOW, *_OPENS_AT_ONCE)


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The breaker of one model on one node. Times are in seconds on any monotonic clock."""

    def __init__(self, settings: BreakerSettings, draw: Random) -> None:
        self.settings = settings
        self.probing = False
        self.held_open = False
        """Whether an operator holds it open."""
        self.until = 0.0
        """When the open state ends; 0 while closed."""
        self._draw = draw
        self._dwell = settings.dwell_s
        self._calls: deque[tuple[float, Outcome]] = deque(maxlen=settings.window_calls)
        self._well_at = -math.inf
        self._unprobed = False
        """Whether it closes without a probe when the open state ends."""

    def update_settings(self, settings: BreakerSettings) -> None:
        """Use other settings from now on. An open breaker stays open for as long as it was to be."""
        self.settings = settings
        self._calls = deque(self._calls, maxlen=settings.window_calls)
        self._dwell = min(max(self._dwell, settings.dwell_s), settings.max_dwell_s)

    def reset(self) -> None:
        """Close it, and forget what has happened; it stays open if an operator holds it."""
        self.until, self._dwell = 0.0, self.settings.dwell_s
        self.probing = self._unprobed = False
        self._calls.clear()

    def state(self, now: float) -> State:
        if self.held_open:
            return State.OPEN
        if not self.until or (self._unprobed and now >= self.until):
            return State.CLOSED
        return State.OPEN if now < self.until else State.HALF_OPEN

    def allows(self, now: float) -> bool:
        """Whether one more call may go to the node."""
        if self.held_open:
            return False
        return not self.until or (now >= self.until and (self._unprobed or not self.probing))

    def begin(self, now: float) -> bool:
        """A call that `allows` permitted begins. Returns whether it is the probe; pass that to `end`."""
        if self.state(now) is State.CLOSED:
            self.until, self._unprobed = 0.0, False
            return False
        self.probing = True
        return True

    def end(self, outcome: Outcome, now: float, *, probe: bool, hold_s: float = 0.0) -> bool:
        """A call has ended. Returns whether that opened the breaker.

        With `LIMITED` it stays open for at least `hold_s`.
        """
        if outcome is Outcome.SUCCEEDED:
            self._well_at = now
        if probe:
            self.probing = False
            if outcome in _BAD:
                self._dwell = min(self._dwell * 2, self.settings.max_dwell_s)
                self._open(now, hold_s)
            elif outcome is Outcome.SUCCEEDED:
                self.until, self._dwell = 0.0, self.settings.dwell_s
                self._calls.clear()
            return outcome in _BAD
        if (
            self.state(now) is not State.CLOSED
        ):  # the call began before the breaker opened: only the probe decides
            if hold_s:
                self.until = max(self.until, now + min(hold_s, self.settings.max_hold_s))
            return False
        if outcome in _OPENS_AT_ONCE:
            lately = now - self._well_at < self.settings.window_s
            self._unprobed = outcome is Outcome.LIMITED and lately
            if outcome is Outcome.HUNG and not lately:
                hold_s = self.settings.hung_s
            self._open(now, hold_s)
            return True
        if outcome is Outcome.UNKNOWN:
            return False
        self._calls.append((now, outcome))
        if outcome is Outcome.SUCCEEDED or not self._too_many(now):
            return False
        self._unprobed = False
        self._open(now)
        return True

    def _too_many(self, now: float) -> bool:
        since = now - self.settings.window_s
        recent = [outcome for at, outcome in self._calls if at >= since]
        if len(recent) < self.settings.min_calls:
            return False
        failed, slow = recent.count(Outcome.FAILED), recent.count(Outcome.SLOW)
        return failed >= self.settings.error_share * len(
            recent
        ) or failed + slow >= self.settings.slow_share * len(recent)

    def _open(self, now: float, hold_s: float = 0.0) -> None:
        jitter = self.settings.jitter
        dwell_s = self._dwell * self._draw.uniform(1 - jitter, 1 + jitter)
        self.until = now + max(dwell_s, min(hold_s, self.settings.max_hold_s))
        self._calls.clear()
