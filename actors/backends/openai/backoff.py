"""Backs off from a server that asks for it, per model."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from orchestration.errors import OrchestraError
from orchestration.placement.server_limit import ServerLimit

SEVERAL = 3
"""Number of limited models, with no answer in between, after which all models of the server wait."""
LONGEST_S = 86_400.0
"""Maximum wait; a longer one is taken for a day."""
_RESETS = ("requests", "tokens")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d*)?)s)?(?:(\d+(?:\.\d*)?)ms)?")
_IN_WORDS = re.compile(r"(?:try again|retry|wait) (?:in|after|for) ((?:\d+(?:\.\d+)?(?:ms|[hms]))+)")


def retry_after_s(headers: Mapping[str, str], now_epoch_s: float) -> float | None:
    """The wait that a response asks for, at least 0; None if it has none that can be parsed.

    `retry-after-ms` goes before `Retry-After` (RFC 9110, 10.2.3: seconds, or a date, which is compared with
    the answer's own `Date`), and that before the `x-ratelimit-reset-…` of a limit with nothing remaining.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _sane(milliseconds / 1000)
    value = headers.get("Retry-After")
    if value is None:
        return _reset_s(headers)
    seconds = _number(value)
    if seconds is not None:
        return _sane(seconds)
    moment = _epoch_s(value)
    if moment is None:
        return duration_s(value)
    sent = _epoch_s(headers.get("Date", ""))
    return _sane(moment - (now_epoch_s if sent is None else sent))


def wait_in_text(text: str) -> float | None:
    """The wait in a text such as "Please try again in 1m30s"."""
    found = _IN_WORDS.search(text.lower())
    return duration_s(found[1]) if found else None


def duration_s(text: str) -> float | None:
    """Seconds of a text such as `6m0s`, `1.5s` or `20ms`."""
    found = _DURATION.fullmatch(text.strip())
    if not text.strip() or found is None:
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
    return _sane(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)


def _reset_s(headers: Mapping[str, str]) -> float | None:
    waits = []
    for name in _RESETS:
        if _number(headers.get(f"x-ratelimit-remaining-{name}")) == 0:
            value = headers.get(f"x-ratelimit-reset-{name}", "")
            seconds = _number(value)
            waits.append(duration_s(value) if seconds is None else _sane(seconds))
    return max((wait for wait in waits if wait is not None), default=None)


def _number(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _epoch_s(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _sane(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_S)


@dataclass(slots=True)
class _Hold:
    """A wait until `until`, at most `max_s` after it began; the server's limit may be longer."""

    limit: ServerLimit
    began: float
    until: float


class Backoff:
    """Refuses generations of a model until the time that the server asked for.

    The refusal is the server's own error with the remaining time. If `SEVERAL` models are limited and none
    has answered since the first of them, the whole server is taken to be limited and all its models wait.
    """

    def __init__(self, max_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_s = max_s
        self._clock = clock
        self._holds: dict[str, _Hold] = {}
        self._answered_at = -math.inf

    def begin(self, model: str, error: OrchestraError) -> None:
        """The server refused `model`. A longer wait extends the current one, a shorter one changes
        nothing."""
        if not error.retry_after_s:
            return
        now = self._clock()
        until = now + min(error.retry_after_s, self._max_s)
        before = self._holds.get(model)
        if before is None or until > before.until:
            self._holds[model] = _Hold(ServerLimit(error, now + error.retry_after_s), now, until)

    def answered(self) -> None:
        """The server answered for some model, so it is not limited as a whole."""
        self._answered_at = self._clock()

    def check(self, model: str) -> None:
        """Raises the server's refusal while its wait lasts."""
        if not self._holds:
            return
        now = self._clock()
        self._holds = {name: hold for name, hold in self._holds.items() if hold.until > now}
        hold = self._holds.get(model)
        if hold is None and len(self._holds) >= SEVERAL:
            soonest = min(self._holds.values(), key=lambda each: each.until)
            if min(each.began for each in self._holds.values()) > self._answered_at:
                hold = soonest
        if hold is not None:
            raise hold.limit.refusal(now)
