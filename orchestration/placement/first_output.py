"""Decides when a node that has given no output of a generation counts as hung.

The limit is learned from the rates that the nodes have measured for the model. A node that shows any other
sign of life for the model is busy, not hung: its upstream may have a queue of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from orchestration.messages import ModelRates
from orchestration.placement.needs import Needs


class FirstOutputSettings(BaseModel):
    """Timeout of a node's first output of a generation, while another node could take it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: float = Field(default=10, gt=1)
    """Timeout as a multiple of the time that the model's record predicts for the length of the prompt."""
    min_s: float = Field(default=5, gt=0)
    """Minimum timeout."""
    max_s: float = Field(default=60, gt=0)
    """Maximum timeout. A prompt whose predicted time is more than half of it gets twice the predicted
    time."""
    unknown_s: float = Field(default=20, gt=0)
    """Timeout of a model without a record."""

    def limit_s(self, records: Iterable[ModelRates], prompt_tokens: int) -> float:
        """Seconds to the first output, by the slowest node that has measured the model."""
        expected = max(
            (each.first_s + each.prompt_token_s * prompt_tokens for each in records if each.samples),
            default=None,
        )
        if expected is None:
            return self.unknown_s
        return max(self.min_s, min(self.factor * expected, max(self.max_s, 2 * expected)))


@dataclass(slots=True, eq=False)
class Call:
    """A generation in progress on a node. `has_output` says that its reader has received something;
    `alive_at` is the last time that the node gave another sign of life."""

    id: str
    node: str
    needs: Needs
    sent_at: float
    limit_s: float = math.inf
    has_output: bool = False
    alive_at: float = -math.inf


@dataclass(slots=True)
class _SignOfLife:
    """The number of generations of a model that a node has completed, and when it last grew."""

    samples: int
    at: float = -math.inf


Records = Callable[[str], Mapping[str, ModelRates]]
"""Returns the rates of a model that each node has measured."""


class FirstOutputs:
    """The calls of one dispatcher in progress. `now` is on a monotonic clock."""

    def __init__(self, settings: FirstOutputSettings) -> None:
        self.settings = settings
        self._calls: dict[tuple[str, str], set[Call]] = {}
        """The calls by node and model."""
        self._signs: dict[tuple[str, str], _SignOfLife] = {}

    def __len__(self) -> int:
        return sum(len(calls) for calls in self._calls.values())

    def sent(self, generation: str, node: str, needs: Needs, now: float) -> Call:
        """A generation was sent to `node`; pass the call to `ended`."""
        call = Call(generation, node, needs, now)
        self._calls.setdefault((node, needs.model), set()).add(call)
        return call

    def ended(self, call: Call) -> None:
        of_model = (call.node, call.needs.model)
        calls = self._calls[of_model]
        calls.discard(call)
        if not calls:
            del self._calls[of_model]
            self._signs.pop(of_model, None)

    def overdue(self, records: Records, now: float) -> list[Call]:
        """Calls without output within their limits. The caller finds out which of them have output, then
        calls `hung`."""
        found: list[Call] = []
        min_s = min(self.settings.min_s, self.settings.unknown_s)
        of_models: dict[str, Mapping[str, ModelRates]] = {}
        for (node, model), calls in self._calls.items():
            known = of_models.get(model)
            if known is None:
                known = of_models[model] = records(model)
            self._update_sign(node, model, known.get(node), now)
            for call in calls:
                if not call.has_output and now - max(call.sent_at, call.alive_at) > min_s:
                    call.limit_s = self.settings.limit_s(known.values(), call.needs.prompt_tokens)
                    if now - max(call.sent_at, call.alive_at) > call.limit_s:
                        found.append(call)
        return found

    def hung(self, overdue: Iterable[Call], now: float) -> list[Call]:
        """Those of `overdue` whose node has shown no sign of life for the model within the limit."""
        silent = (call for call in overdue if not call.has_output and now - call.alive_at > call.limit_s)
        return [call for call in silent if not self._shows_life(call, now)]

    def _shows_life(self, call: Call, now: float) -> bool:
        of_model = (call.node, call.needs.model)
        sign = self._signs.get(of_model)
        if sign is not None and now - sign.at < call.limit_s:
            return True
        return any(
            other.has_output or now - other.alive_at < call.limit_s for other in self._calls.get(of_model, ())
        )

    def _update_sign(self, node: str, model: str, record: ModelRates | None, now: float) -> None:
        samples = record.samples if record is not None else 0
        sign = self._signs.get((node, model))
        if sign is None:
            self._signs[node, model] = _SignOfLife(samples)
        elif samples > sign.samples:
            self._signs[node, model] = _SignOfLife(samples, now)
