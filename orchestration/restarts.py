"""Decides when to restart a crashed actor, and when to give up. Pure: time and randomness are arguments."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """Restart after `backoff_s * factor**n`, at most `max_backoff_s`, spread by ±`jitter` of itself;
    give up at the crash after `max_restarts` restarts within `window_s` seconds."""

    backoff_s: float = 0.1
    factor: float = 2.0
    max_backoff_s: float = 30.0
    jitter: float = 0.2
    max_restarts: int = 5
    window_s: float = 60.0


@dataclass(slots=True)
class Restarts:
    """The crashes of one actor in the window."""

    policy: RestartPolicy
    times: deque[float] = field(default_factory=deque)

    def after_crash(self, now: float, chance: float) -> float | None:
        """Seconds to wait before the restart, or None to give up.

        `now` is any monotonic clock in seconds, `chance` uniform in [0, 1).
        """
        policy = self.policy
        while self.times and now - self.times[0] > policy.window_s:
            self.times.popleft()
        if len(self.times) >= policy.max_restarts:
            return None
        delay = min(policy.backoff_s * policy.factor ** len(self.times), policy.max_backoff_s)
        self.times.append(now)
        return delay * (1 + policy.jitter * (2 * chance - 1))
