"""Measures one generation on its node: time to first token, speed, and tokens."""

from __future__ import annotations

import time

from actors.node.generation_spans import record_phases
from actors.node.metrics import model_metrics
from actors.node.rates import RateMeter
from actors.telemetry.tracing import OpenSpan
from orchestration.messages import Generation, Usage


class AnswerMeter:
    """Begins with the generation. Call `piece` for each output with content, and `finished` at the end, or
    `cut_off` where there is none. `concurrent`: generations in progress beside it at its start."""

    __slots__ = ("_began", "_concurrent", "_first", "_generation", "_pieces", "_tokens")

    def __init__(self, generation: Generation, concurrent: int) -> None:
        self._generation = generation
        self._concurrent = concurrent
        self._began = time.perf_counter()
        self._first: float | None = None
        self._pieces = 0
        self._tokens = 0

    def piece(self, tokens: int) -> None:
        """Count an output that the backend gave."""
        if self._first is None:
            self._first = time.perf_counter()
        self._pieces += 1
        self._tokens += tokens

    def finished(self, usage: Usage, rates: RateMeter, span: OpenSpan, concurrent: int) -> None:
        """Record the speed of the complete answer; `concurrent` others are in progress now. Tokens that
        another node wrote do not count."""
        own = max(0, usage.completion_tokens - self._generation.prefix_tokens)
        metrics = model_metrics(self._generation.model)
        metrics.count(usage, own)
        first = self._first
        if first is None:
            return
        now = time.perf_counter()
        split = self._pieces > 1 or own <= 1
        if split and own:
            metrics.first_token.observe(first - self._began)
        if split and own > 1:
            metrics.per_token.observe((now - first) / (own - 1))
        rates.succeeded(
            self._generation.model,
            uncached=max(0, usage.prompt_tokens - usage.cached_tokens),
            tokens=own,
            took_s=now - self._began,
            first_s=first - self._began if split else None,
            concurrent=(self._concurrent + concurrent) / 2,
        )
        if span.recording:
            record_phases(span, self._began, first, self._pieces)

    def cut_off(self) -> None:
        """Count the tokens of an answer that was cancelled or has failed; what it read of the prompt is not
        known."""
        if self._tokens:
            model_metrics(self._generation.model).completion.inc(self._tokens)
