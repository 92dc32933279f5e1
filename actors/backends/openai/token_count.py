"""Counts tokens in the events of an upstream, which may have one token each, or dozens."""

from __future__ import annotations

from orchestration.token_length import likely_tokens

PER_EVENT, SPARE = 1.25, 2.0
"""Events count as one token each while the estimate from the text is at most PER_EVENT tokens per event plus
SPARE."""
WEIGHT = 0.2
"""Weight of the latest answer in a model's ratio."""
LEAST, MOST = 0.4, 3.0
"""Plausible ratios of reported to estimated tokens; others are ignored."""


class TokenRatio:
    """The ratio of a model's reported tokens to those estimated by `likely_tokens`; 1 until known."""

    __slots__ = ("_known", "value")

    def __init__(self) -> None:
        self.value = 1.0
        self._known = False

    def learn(self, told: int, likely: float) -> None:
        ratio = told / likely if likely >= 1 else 0.0
        if LEAST <= ratio <= MOST:
            self.value += (WEIGHT if self._known else 1.0) * (ratio - self.value)
            self._known = True


class TokenCounter:
    """Counts the tokens of one answer. `total` never decreases."""

    __slots__ = ("_events", "_likely", "_likely_since", "_rate", "_told", "total")

    def __init__(self, rate: TokenRatio) -> None:
        self.total = 0
        self._rate = rate
        self._events = 0
        self._likely = self._likely_since = 0.0
        self._told = 0

    def add(self, text: str, *, exact: int = 0, told: int = 0) -> int:
        """Add an event with `text`. `exact`: its number of tokens, if known; `told`: the tokens of the answer
        so far as reported by the upstream; 0 if unknown. Returns the added tokens."""
        before, likely = self.total, likely_tokens(text)
        self._likely += likely
        self._likely_since += likely
        self._events += exact or 1
        if told > self._told:
            self._told, self._likely_since = told, 0.0
            self.total = max(before, told)
        elif exact:
            self.total += exact
        elif self._told:
            self.total = max(before, self._told + round(self._likely_since * self._rate.value))
        else:
            likely = self._likely * self._rate.value
            by_event = likely <= PER_EVENT * self._events + SPARE
            self.total = max(before, self._events if by_event else round(likely))
        return self.total - before

    def learn(self, whole: int) -> None:
        """Update the ratio from the upstream's token count of the whole answer."""
        self._rate.learn(whole, self._likely)
