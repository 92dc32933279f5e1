"""Which of the processes that send heartbeats have failed."""

from __future__ import annotations

import time
from collections.abc import Iterable

from actors.bus.bus import Bus


class FailureDetector:
    """The time of the last heartbeat of each name. A name without one for `timeout_s` has failed.

    All names get a new `timeout_s` when no heartbeat could arrive: after NATS was away, and after this
    process stood still.
    """

    def __init__(self, bus: Bus, timeout_s: float) -> None:
        self.bus = bus
        self.timeout_s = timeout_s
        self._seen: dict[str, float] = {}
        self._checked = time.monotonic()

    def start(self) -> None:
        """Call `failed` often from now on, at least twice in `timeout_s`."""
        self._checked = time.monotonic()
        self.bus.on_reconnect.append(self.grant_grace)

    def stop(self) -> None:
        if self.grant_grace in self.bus.on_reconnect:
            self.bus.on_reconnect.remove(self.grant_grace)

    def heartbeat(self, name: str) -> None:
        self._seen[name] = time.monotonic()

    def forget(self, name: str) -> None:
        self._seen.pop(name, None)

    def grant_grace(self) -> None:
        """Count from now for all names."""
        self._seen = dict.fromkeys(self._seen, time.monotonic())

    @property
    def overdue(self) -> bool:
        """Whether a name has had no heartbeat for half of `timeout_s`."""
        before = time.monotonic() - self.timeout_s / 2
        return any(seen < before for seen in self._seen.values())

    def failed(self) -> Iterable[str]:
        """The names that have failed. Forget each of them."""
        now = time.monotonic()
        if now - self._checked > self.timeout_s / 2:
            self.grant_grace()
        self._checked = now
        if not self.bus.connected:
            return []
        return [name for name, seen in self._seen.items() if now - seen > self.timeout_s]
