"""Metrics of a chat model at Triton's /metrics; Triton's own have no tokens."""

from __future__ import annotations

from typing import Any

from actors.engine.worker import EngineStats

_GAUGES = {
    "running": "Generations in a slot",
    "waiting": "Generations that wait for a slot or for memory",
    "kv_tokens": "Tokens whose keys and values are in memory",
}
_COUNTERS = {
    "prompt_tokens": "Prompt tokens of started generations",
    "cached_tokens": "Prompt tokens taken from the prefix cache",
    "completion_tokens": "Tokens generated",
    "steps": "Calls of the model",
    "first_tokens": "Generations with a first token",
    "time_to_first_token_seconds": "Sum of the times to the first token, in seconds",
    "cancelled": "Generations whose client cancelled or disconnected",
}
PREFIX = "orchestra_llm_"


class ChatMetrics:
    """Counters and gauges `orchestra_llm_…` with the label `model`. `pb` is Triton's module."""

    def __init__(self, pb: Any, model: str) -> None:
        self.first_tokens = 0
        self.time_to_first_token_seconds = 0.0
        self.cancelled = 0
        self._reported: dict[str, float] = {}
        self._families = []
        """Kept, because Triton drops a metric with its family."""
        self._metrics = {}
        for names, kind in ((_GAUGES, pb.MetricFamily.GAUGE), (_COUNTERS, pb.MetricFamily.COUNTER)):
            for name, about in names.items():
                family = pb.MetricFamily(name=PREFIX + name, description=about, kind=kind)
                self._families.append(family)
                self._metrics[name] = family.Metric(labels={"model": model})

    def first_token(self, after_s: float) -> None:
        self.first_tokens += 1
        self.time_to_first_token_seconds += after_s

    def tell(self, stats: EngineStats) -> None:
        """Update Triton's metrics."""
        for name, metric in self._metrics.items():
            value = float(getattr(self if hasattr(self, name) else stats, name))
            before = self._reported.get(name, 0.0)
            if value == before:
                continue
            self._reported[name] = value
            if name in _GAUGES:
                metric.set(value)
            else:
                metric.increment(value - before)
