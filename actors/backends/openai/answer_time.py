"""Predicts how long an upstream takes for a whole answer."""

from __future__ import annotations

import math

WHOLE_S = 0.5
"""Maximum predicted time of an answer that is requested in one piece. A stall is noticed, and another
node tried, at most so much later than with a stream."""
WEIGHT = 0.2
"""Weight of the latest answer in the averages."""


class AnswerTime:
    """Moving averages of the time and the tokens of a model's answers."""

    __slots__ = ("_seconds", "_tokens", "streams_only")

    def __init__(self) -> None:
        self._seconds = math.inf
        self._tokens = 0.0
        self.streams_only = False
        """Whether the upstream refused to answer in one piece."""

    def learn(self, seconds: float, tokens: int) -> None:
        """Record an answer of `tokens` tokens that was complete after `seconds`."""
        if tokens <= 0:
            return
        known = math.isfinite(self._seconds)
        self._seconds = self._seconds + WEIGHT * (seconds - self._seconds) if known else seconds
        self._tokens = self._tokens + WEIGHT * (tokens - self._tokens) if known else float(tokens)

    def predict_s(self, max_tokens: int | None) -> float:
        """The time of an answer of `max_tokens`; infinite if that or the model's speed is unknown."""
        if max_tokens is None or not math.isfinite(self._seconds):
            return math.inf
        return self._seconds * max(1.0, max_tokens / self._tokens)

    def streams(self, max_tokens: int | None) -> bool:
        """Whether an answer of at most `max_tokens` is better requested as a stream, although its caller
        wants it whole."""
        return self.streams_only or self.predict_s(max_tokens) > WHOLE_S
