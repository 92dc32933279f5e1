"""Metrics of a dispatcher."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from actors.telemetry.labels import MODELS

_WAIT_SECONDS = Histogram(
    "orchestra_dispatcher_wait_seconds", "Time in seconds in the queue, until a node had room", ["model"]
)
_LOADS_AHEAD = Counter(
    "orchestra_dispatcher_loads_ahead",
    "Requests to nodes to load a model in advance",
    ["model", "outcome"],
)
PREWARM_LEADER = Gauge(
    "orchestra_dispatcher_prewarm_leader",
    "1 in the one dispatcher that decides which models are loaded in advance, else 0",
)
WAITING = Gauge("orchestra_dispatcher_waiting", "Generations taken from the queue that wait for a free slot")


def loads_ahead(model: str, outcome: str) -> Counter:
    return _LOADS_AHEAD.labels(MODELS.known(model), outcome)


def wait_seconds(model: str) -> Histogram:
    return _wait_seconds(MODELS.known(model))


@lru_cache(maxsize=1024)
def _wait_seconds(label: str) -> Histogram:
    return _WAIT_SECONDS.labels(label)
