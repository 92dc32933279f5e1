"""Counts tokens in the events of an upstream, which may have one token each, or dozens."""

from __future__ import annotations

from orchestration.token_length import likely_tokens

PER_EVENT, SPARE = 1.25, 2.0
"""Events count as one token each while the estimate from the text is at most PER_EVENT tokens per event plus
SPARE."""
WEIGHT = 0.2
"""Weight of the latest answer in a model's ratio."""
MIN_RATIO, MAX_RATIO = 0.4, 3.0
"""Plausible ratios of reported to estimated tokens; others are ignored."""


class TokenRatio:
    """The ratio of a model's reported tokens to those estimated by `likely_tokens`; 1 until known."""

    __slots__ = ("_known", "value")

    def __init__(self) -> None:
        self.value = 1.0
        self._known = False

    def learn(self, reported: int, likely: float) -> None:
        ratio = reported / likely if likely >= 1 else 0.0
        if MIN_RATIO <= ratio <= MAX_RATIO:
            self.value += (WEIGHT if self._known else 1.0) * (ratio - self.value)
            self._known = True


class TokenCounter:
    """Counts the tokens of one answer. `total` never decreases."""

    __slots__ = ("_events", "_likely", "_likely_since", "_rate", "_reported", "total")

    def __init__(self, rate: TokenRatio) -> None:
        self.total = 0
        self._rate = rate
        self._events = 0
        self._likely = self._likely_since = 0.0
        self._reported = 0

    def add(self, text: str, *, exact: int = 0, reported: int = 0) -> int:
        """Count an event with `text` and return the tokens that it adds. `exact`: its number of tokens;
        `reported`: the upstream's count of the answer so far; each 0 if unknown."""
        before, likely = self.total, likely_tokens(text)
        self._likely += likely
        self._likely_since += likely
        self._events += exact or 1
        if reported > self._reported:
            self._reported, self._likely_since = reported, 0.0
            self.total = max(before, reported)
        elif exact:
            self.total += exact
        elif self._reported:
            self.total = max(before, self._reported + round(self._likely_since * self._rate.value))
        else:
            likely = self._likely * self._rate.value
            by_event = likely <= PER_EVENT * self._events + SPARE
            self.total = max(before, self._events if by_event else round(likely))
        return self.total - before

    def learn(self, whole: int) -> None:
        """Update the ratio from the upstream's token count of the whole answer."""
        self._rate.learn(whole, self._likely)
