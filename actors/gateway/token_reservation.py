"""The tokens of one request: reserved before it starts, settled when it has ended."""

from __future__ import annotations

import time

from orchestration.limits import RateLimiter, Reservation, TokenEstimates
from orchestration.messages import Progress, StreamEnd, StreamEvent, TextDelta, Work


class TokenReservation:
    """Reserves the tokens when it is constructed. Raises `LimitExceeded` or `TooManyTokens`."""

    __slots__ = ("_ended", "_estimates", "_limits", "_observed", "_prompt", "_reservation", "_steps", "_work")

    def __init__(
        self,
        limits: RateLimiter,
        estimates: TokenEstimates,
        caller: str,
        work: Work,
        assumed_tokens: int,
    ) -> None:
        self._limits = limits
        self._estimates = estimates
        self._work = work
        self._prompt = 0
        self._observed = 0
        self._steps = 0
        self._ended: int | None = None
        self._reservation: Reservation | None = None
        now = time.monotonic()
        max_tokens = limits.most_tokens(caller, now)
        if max_tokens is not None:
            estimate = estimates.of(work, assumed_tokens, max_tokens)
            self._prompt = estimate.prompt
            self._reservation = limits.reserve(caller, estimate.total, now)

    @property
    def limited(self) -> bool:
        """Whether a limit applies. If not, `observe` and `settle` need not be called."""
        return self._reservation is not None

    def observe(self, event: StreamEvent) -> None:
        """Count one event of the response."""
        if isinstance(event, TextDelta):
            self._observed += event.tokens
        elif isinstance(event, Progress) and event.step is not None:
            self._steps += event.step.usage.prompt_tokens + event.step.usage.completion_tokens
        elif isinstance(event, StreamEnd):
            self._ended = event.finish.usage.prompt_tokens + event.finish.usage.completion_tokens
            if event.error is None:
                self._estimates.learn(self._work, event.finish.usage)

    def settle(self) -> None:
        """Charge the tokens that the node reported. For a response that was cut, charge those observed; for a
        run, those of its finished steps."""
        if self._reservation is not None:
            partly = max(self._steps, self._prompt + self._observed if self._observed else 0)
            self._reservation.settle(partly if self._ended is None else self._ended, time.monotonic())
