"""Metrics of the placement of generations, by dispatchers and by whoever calls nodes directly."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import REGISTRY, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.telemetry.labels import MODELS, NODES
from orchestration.placement.breaker import State
from orchestration.placement.replica_index import ReplicaIndex

_PLACED = Counter("orchestra_placement_placed", "Generations sent to a node", ["model", "node"])
_MOVED = Counter("orchestra_placement_moved", "Generations moved from a node to another", ["model", "reason"])
_HEDGES = Counter(
    "orchestra_placement_hedges",
    "Generations sent to a second node as well: it began first (won), later (lost) or failed",
    ["model", "outcome"],
)
_ENDED = Counter("orchestra_placement_ended", "Generations ended", ["model", "outcome"])
_DIRECT = Counter(
    "orchestra_placement_direct",
    "Generations that were to go straight to a node, by outcome: placed, queued (no node had room, or others "
    "waited), or moved to the queue afterwards",
    ["model", "outcome"],
)


def placed(model: str, node: str) -> Counter:
    return _child(_PLACED, MODELS.known(model), NODES.of(node))


def moved(model: str, reason: str) -> Counter:
    return _child(_MOVED, MODELS.known(model), reason)


def hedges(model: str, outcome: str) -> Counter:
    return _child(_HEDGES, MODELS.known(model), outcome)


def ended(model: str, outcome: str) -> Counter:
    return _child(_ENDED, MODELS.known(model), outcome)


def direct(model: str, outcome: str) -> Counter:
    return _child(_DIRECT, MODELS.known(model), outcome)


@lru_cache(maxsize=8192)
def _child(metric: Counter, model: str, other: str) -> Counter:
    return metric.labels(model, other)


def _node_removed(label: str) -> None:
    _child.cache_clear()
    _PLACED.remove_by_labels({"node": label})


NODES.on_removed.append(_node_removed)


class BreakerStates(Collector):
    """The circuit breakers of this process that are not closed, as its placers see them at a scrape."""

    def __init__(self) -> None:
        self.indexes: list[ReplicaIndex] = []
        """Of the placers that run."""

    def collect(self) -> Iterable[Metric]:
        opened = GaugeMetricFamily(
            "orchestra_placement_breaker_open",
            "1 for each circuit breaker that is not closed: the node gets no generations of the model; a "
            "closed one has no series",
            labels=["model", "node"],
        )
        now = time.monotonic()
        found = {
            (MODELS.known(model), NODES.of(replica.id))
            for index in self.indexes
            for model, replicas in index.replicas.items()
            for replica in replicas.values()
            if replica.breaker.until and replica.breaker.state(now) is not State.CLOSED
        }
        for labels in sorted(found):
            opened.add_metric(labels, 1)
        yield opened


breaker_states = BreakerStates()
REGISTRY.register(breaker_states)
