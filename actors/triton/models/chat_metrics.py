"""What a chat model tells at Triton's /metrics: Triton's own figures see no tokens."""

from __future__ import annotations

from typing import Any

from actors.engine.stats import EngineStats

_GAUGES = {
    "running": "Generations that hold a slot now",
    "waiting": "Generations that wait for a slot or for memory",
    "kv_tokens": "Tokens whose keys and values are held now",
}
_COUNTERS = {
    "prompt_tokens": "Prompt tokens of the generations that began",
    "cached_tokens": "Prompt tokens reused from a shared prefix",
    "completion_tokens": "Tokens generated",
    "steps": "Calls of the model",
    "first_tokens": "Generations that gave a first token",
    "time_to_first_token_seconds": "Sum over those of the seconds until then",
    "cancelled": "Generations whose client went away",
}
PREFIX = "orchestra_llm_"


class ChatMetrics:
    """Counters and gauges `orchestra_llm_…` with the label `model`. `pb` is Triton's module."""

    def __init__(self, pb: Any, model: str) -> None:
        self.first_tokens = 0
        self.time_to_first_token_seconds = 0.0
        self.cancelled = 0
        self._told: dict[str, float] = {}
        self._families = []
        """Triton drops a metric with its family."""
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
        """Bring what Triton shows up to date."""
        for name, metric in self._metrics.items():
            value = float(getattr(self if hasattr(self, name) else stats, name))
            before = self._told.get(name, 0.0)
            if value == before:
                continue
            self._told[name] = value
            if name in _GAUGES:
                metric.set(value)
            else:
                metric.increment(value - before)
