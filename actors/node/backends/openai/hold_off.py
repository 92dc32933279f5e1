"""Staying away from a server that asked for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from orchestration.errors import NodeBusy, OrchestraError, Unavailable


def retry_after_s(headers: Mapping[str, str], now_epoch_s: float) -> float | None:
    """What Retry-After (RFC 9110, 10.2.3: seconds or a date) or `retry-after-ms` asks for, if it is sane."""
    milliseconds = headers.get("retry-after-ms")
    value = headers.get("Retry-After")
    try:
        if milliseconds is not None:
            seconds = float(milliseconds) / 1000
        elif value is None:
            return None
        else:
            try:
                seconds = float(value)
            except ValueError:
                seconds = parsedate_to_datetime(value).timestamp() - now_epoch_s
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds) if abs(seconds) < 1e9 else None


class HoldOff:
    """Refuses generations until the moment the server named, instead of hammering it.

    A 429 is answered with `NodeBusy`, anything else (503) with `Unavailable`, each with the time left.
    """

    def __init__(self, host: str, max_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._max_s = max_s
        self._clock = clock
        self._until = 0.0
        self._kind: type[OrchestraError] = Unavailable

    def begin(self, status: int, seconds: float) -> None:
        """Hold off for `seconds`; a later, longer wish prolongs it, a shorter one changes nothing."""
        until = self._clock() + min(seconds, self._max_s)
        if until > self._until:
            self._until = until
            self._kind = NodeBusy if status == 429 else Unavailable

    @property
    def left_s(self) -> float:
        return max(0.0, self._until - self._clock())

    def check(self) -> None:
        """Raises the refusal while the server wants to be left alone."""
        if not self._until:
            return
        left = self.left_s
        if not left:
            self._until = 0.0
            return
        raise self._kind(f"{self._host} asked to be left alone for {left:.3g} s more", retry_after_s=left)
