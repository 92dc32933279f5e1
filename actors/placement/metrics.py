"""Metrics of the placement of generations, by dispatchers and by whoever calls nodes directly."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter

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


@lru_cache(maxsize=4096)
def placed(model: str, node: str) -> Counter:
    return _PLACED.labels(model, node)


@lru_cache(maxsize=4096)
def moved(model: str, reason: str) -> Counter:
    return _MOVED.labels(model, reason)


@lru_cache(maxsize=4096)
def hedges(model: str, outcome: str) -> Counter:
    return _HEDGES.labels(model, outcome)


@lru_cache(maxsize=4096)
def ended(model: str, outcome: str) -> Counter:
    return _ENDED.labels(model, outcome)


@lru_cache(maxsize=4096)
def direct(model: str, outcome: str) -> Counter:
    return _DIRECT.labels(model, outcome)
