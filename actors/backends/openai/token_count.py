"""How many tokens have come in the events of an upstream, which may hold one token each, or dozens."""

from __future__ import annotations

from orchestration.token_length import likely_tokens

PER_EVENT, SPARE = 1.25, 2.0
"""While the texts are likely to have no more tokens than so many an event, and a few, the events count: they
hold one token each, whatever the characters say."""
WEIGHT = 0.2
"""Of the latest answer in what a model's tokens are like."""
LEAST, MOST = 0.4, 3.0
"""Tokens told by those likely: what is beyond counts something else."""


class TokenRatio:
    """Of one model: its tokens in a whole answer by those that `likely_tokens` expects; 1 until one was
    counted."""

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
    """Of one answer. `total` only grows."""

    __slots__ = ("_events", "_likely", "_likely_since", "_rate", "_told", "total")

    def __init__(self, rate: TokenRatio) -> None:
        self.total = 0
        self._rate = rate
        self._events = 0
        self._likely = self._likely_since = 0.0
        self._told = 0

    def add(self, text: str, *, exact: int = 0, told: int = 0) -> int:
        """An event with that text. `exact` are its tokens where they came one by one, and `told` those of the
        answer so far by the upstream's word; 0 where it said nothing. Returns how many it brought."""
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
        """The upstream has counted all that was added, and nothing else."""
        self._rate.learn(whole, self._likely)
