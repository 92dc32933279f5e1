"""How fast this node runs each model: measured on what it does anyway, told in its entry in the registry.

Only generations that ended well are timed. What they share the node with is the mean of the generations at
work at their beginning and at their end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestration.messages import ModelRates
from orchestration.placement import Line

MAX_MODELS = 256
"""Models that are measured; a node that serves more leaves the others to the guess."""
MIN_TOKENS = 2
"""Shorter answers have no time between tokens."""
NEWEST_WEIGHT = 0.2
"""Weight of the newest generation in what is told of the latest ones, error rate and slowdown."""


@dataclass(slots=True)
class _ModelRates:
    first: Line = field(default_factory=Line)
    """Seconds to the first token by prompt tokens that were not cached."""
    token: Line = field(default_factory=Line)
    """Seconds for each further token by others at work."""
    samples: int = 0
    error_rate: float = 0.0
    slowdown: float = 1.0

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
    """Of one node."""

    def __init__(self) -> None:
        self._models: dict[str, _ModelRates] = {}

    def snapshot(self) -> dict[str, ModelRates]:
        """By model, those that were measured."""
        return {name: model.snapshot() for name, model in self._models.items()}

    def succeeded(
        self, model: str, *, uncached: int, tokens: int, first_s: float, rest_s: float, concurrent: float
    ) -> None:
        """A generation read `uncached` tokens of its prompt, wrote `tokens`, the first after `first_s`
        seconds and the others in `rest_s`, while `concurrent` others were at work."""
        found = self._model(model)
        if found is None:
            return
        rest = tokens - 1 if tokens >= MIN_TOKENS else 0
        if found.samples:
            base, slope = found.first.fitted()
            token_s, per_other = found.token.fitted()
            expected = base + slope * uncached + (token_s + per_other * concurrent) * rest
            took = first_s + (rest_s if rest else 0.0)
            # A tenth of a second more or less is noise: what is that short is no slower than any other.
            ratio = (took + 0.1) / (expected + 0.1)
            found.slowdown += NEWEST_WEIGHT * (min(ratio, 10.0) - found.slowdown)
        found.samples += 1
        found.error_rate *= 1 - NEWEST_WEIGHT
        found.first.add(uncached, first_s)
        if rest:
            found.token.add(concurrent, rest_s / rest)

    def failed(self, model: str) -> None:
        """A generation failed, and it was the node's or its backend's fault."""
        found = self._model(model)
        if found is not None:
            found.error_rate += NEWEST_WEIGHT * (1 - found.error_rate)

    def _model(self, name: str) -> _ModelRates | None:
        found = self._models.get(name)
        if found is None and len(self._models) < MAX_MODELS:
            found = self._models[name] = _ModelRates()
        return found


def _short(value: float) -> float:
    """Four digits: an entry is sent many times a minute."""
    return float(f"{value:.4g}")
