"""Tells whether the event loop of this process is behind with its work."""

from __future__ import annotations

import asyncio
import time

TICK_S = 0.02
"""Time between two looks at the clock, while anyone uses the monitor."""
BEHIND_S = 0.01
"""A look that comes this late shows that the loop is behind."""
RECOVERY_S = 0.2
"""How long the loop counts as behind after such a look."""


class LoopMonitor:
    """Looks at the clock every `TICK_S` between the first `begin` and the last `end`."""

    __slots__ = ("_behind_until", "_due", "_timer", "_users")

    def __init__(self) -> None:
        self._users = 0
        self._due = 0.0
        self._behind_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._users += 1
        if self._users == 1 and self._timer is None:
            self._schedule(asyncio.get_running_loop())

    def end(self) -> None:
        self._users -= 1

    def is_behind(self, now: float) -> bool:
        """Whether the loop is behind at `now`, a time of `time.monotonic`."""
        return now < self._behind_until or (self._users > 0 and now > self._due + BEHIND_S)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = time.monotonic() + TICK_S
        self._timer = loop.call_later(TICK_S, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        if now > self._due + BEHIND_S:
            self._behind_until = now + RECOVERY_S
        if self._users:
            self._schedule(loop)
        else:
            self._timer = None
