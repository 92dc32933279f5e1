"""Measures how fast this node runs each model, on its normal traffic, for its entry in the registry.

Only successful generations are timed. Their concurrency is the mean of the other generations in progress at
their start and at their end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestration.messages import ModelRates
from orchestration.placement import LinearFit

MAX_MODELS = 256
"""Maximum number of measured models; further ones are estimated by the dispatcher."""
MIN_TOKENS = 2
"""Minimum length of an answer whose time per token is measured."""
NEWEST_WEIGHT = 0.2
"""Weight of the newest generation in the moving averages of error rate and slowdown."""


@dataclass(slots=True)
class _RateEstimate:
    first: LinearFit = field(default_factory=LinearFit)
    """Seconds to the first token against uncached prompt tokens."""
    token: LinearFit = field(default_factory=LinearFit)
    """Seconds per further token against concurrent generations."""
    samples: int = 0
    """Number of measured generations."""
    error_rate: float = 0.0
    """Moving average, 0 to 1."""
    slowdown: float = 1.0
    """Moving average of measured over estimated time."""

    def snapshot(self) -> ModelRates:
        first_s, prompt_token_s = self.first.fitted()
        token_s, token_s_per_other = self.token.fitted()
        return ModelRates(
            samples=self.samples,
            first_s=_short(first_s),
            prompt_token_s=_short(prompt_token_s),
            token_s=_short(token_s),
            token_s_per_other=_short(token_s_per_other),
            error_rate=_short(self.error_rate),
            slowdown=_short(self.slowdown),
        )


class RateMeter:
    """The rates of one node's models."""

    def __init__(self) -> None:
        self._models: dict[str, _RateEstimate] = {}

    def snapshot(self) -> dict[str, ModelRates]:
        """Rates by model name, of the measured models."""
        return {name: model.snapshot() for name, model in self._models.items()}

    def succeeded(
        self,
        model: str,
        *,
        uncached: int,
        tokens: int,
        took_s: float,
        first_s: float | None,
        concurrent: float,
    ) -> None:
        """Record a generation that read `uncached` prompt tokens and generated `tokens` in `took_s` seconds
        beside `concurrent` other generations. `first_s`: seconds to the first token; None for an answer in
        one piece, whose time is split as the estimate has it."""
        found = self._model(model)
        if found is None:
            return
        rest = tokens - 1 if tokens >= MIN_TOKENS else 0
        if not rest and first_s is not None:
            took_s = first_s
        base, slope = found.first.fitted()
        token_s, per_other = found.token.fitted()
        expected_first = base + slope * uncached
        expected = expected_first + (token_s + per_other * concurrent) * rest
        if found.samples:
            # Differences of 0.1 s are noise, which must not count in short generations.
            ratio = (took_s + 0.1) / (expected + 0.1)
            found.slowdown += NEWEST_WEIGHT * (min(ratio, 10.0) - found.slowdown)
        if first_s is None:
            first_s = took_s * (expected_first / expected if expected > 0 else 1.0)
        found.samples += 1
        found.error_rate *= 1 - NEWEST_WEIGHT
        found.first.add(uncached, first_s)
        if rest:
            found.token.add(concurrent, (took_s - first_s) / rest)

    def failed(self, model: str) -> None:
        """Record a failure of the node or its backend."""
        found = self._model(model)
        if found is not None:
            found.error_rate += NEWEST_WEIGHT * (1 - found.error_rate)

    def _model(self, name: str) -> _RateEstimate | None:
        found = self._models.get(name)
        if found is None and len(self._models) < MAX_MODELS:
            found = self._models[name] = _RateEstimate()
        return found


def _short(value: float) -> float:
    """Round to four digits: a registry entry is sent many times a minute."""
    return float(f"{value:.4g}")
