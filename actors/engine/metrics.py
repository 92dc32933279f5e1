"""Metrics of the engines of this process, read from their statistics at a scrape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.engine.worker import EngineStats
from actors.telemetry.labels import MODELS


class HasStats(Protocol):
    """A backend with engines."""

    @property
    def stats(self) -> Sequence[EngineStats]: ...


class EngineMetrics(Collector):
    """The statistics of the engines of each model that is loaded."""

    def __init__(self) -> None:
        self.backends: list[HasStats] = []
        """Those that run."""

    def collect(self) -> Iterable[Metric]:
        batch = GaugeMetricFamily(
            "orchestra_engine_batch_size",
            "Generations in the batch of a model now",
            labels=["model"],
        )
        waiting = GaugeMetricFamily(
            "orchestra_engine_waiting", "Generations that wait for a slot or for memory", labels=["model"]
        )
        kv_tokens = GaugeMetricFamily(
            "orchestra_engine_kv_tokens", "Tokens whose keys and values are in the slots", labels=["model"]
        )
        kv_limit = GaugeMetricFamily(
            "orchestra_engine_kv_tokens_limit", "Maximum tokens of the slots", labels=["model"]
        )
        kv_bytes = GaugeMetricFamily(
            "orchestra_engine_kv_bytes",
            "Bytes of keys and values, in the slots and in the prefix cache",
            labels=["model"],
        )
        hits = CounterMetricFamily(
            "orchestra_engine_prefix_hits", "Generations that reused a cached prefix", labels=["model"]
        )
        steps = CounterMetricFamily("orchestra_engine_steps", "Calls of a model", labels=["model"])
        failures = CounterMetricFamily(
            "orchestra_engine_step_failures", "Calls of a model that failed", labels=["model"]
        )
        totals: dict[str, list[float]] = {}
        for each in (each for backend in list(self.backends) for each in backend.stats):
            numbers = (
                *(each.running, each.waiting, each.kv_tokens, each.kv_tokens_limit, each.cache_bytes),
                *(each.prefix_hits, each.steps, each.failures),
            )
            total = totals.setdefault(MODELS.of(each.model), [0.0] * len(numbers))
            total[:] = [before + more for before, more in zip(total, numbers, strict=True)]
        families: tuple[GaugeMetricFamily | CounterMetricFamily, ...] = (
            *(batch, waiting, kv_tokens, kv_limit, kv_bytes),
            *(hits, steps, failures),
        )
        for label, total in totals.items():
            for family, value in zip(families, total, strict=True):
                family.add_metric([label], value)
        yield from families


engine_metrics = EngineMetrics()
REGISTRY.register(engine_metrics)
