"""Plans which models to load before they are requested: the replicas that save the most waiting.

The value of a replica is the loading time in seconds that it is expected to save: the probability that at
least one generation needs it (a Poisson process), times its loading time. The replicas of least value for
their size are unloaded first, and only for one of clearly higher value.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestration.messages import ModelCard, NodeInfo

MIN_GAIN_RATIO = 1.5
"""A model that is loaded must have this multiple of the value of those unloaded, so that they do not
alternate."""
MIN_LOAD_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """Load `model` on `node`, and unload the models `leaving` for it, unless they are in use then."""

    node: str
    model: str
    leaving: tuple[str, ...]


def worth(card: ModelCard, expected: float, others: int) -> float:
    """The value of a replica in seconds, if `others` replicas of the same model share the arrivals."""
    return -math.expm1(-expected / (others + 1)) * max(card.load_s, MIN_LOAD_S)


def plan(nodes: Iterable[NodeInfo], expected: Mapping[str, float], *, floor: float) -> list[WarmUp]:
    """At most one load per node, the most valuable first. A model needs at least `floor` expected
    generations.

    Nodes are skipped that have room for all their models, that drain, or whose memory is claimed by waiting
    generations.
    """
    small = [
        node
        for node in nodes
        if 0 < node.memory.limit_bytes < sum(card.memory_bytes for card in node.models)
        and not node.draining
        and not node.memory.claims
    ]
    held: dict[str, int] = {}
    for node in small:
        for card in node.models:
            held[card.name] = held.get(card.name, 0) + card.loaded
    found: list[WarmUp] = []
    while small:
        offers = [(*offer, node) for node in small for offer in _offers(node, expected, floor, held)]
        if not offers:
            break
        _, best, node = max(offers, key=lambda offer: (offer[0], offer[1].node, offer[1].model))
        found.append(best)
        small = [each for each in small if each is not node]
        held[best.model] += 1
        for model in best.leaving:
            held[model] -= 1
    return found


def _offers(
    node: NodeInfo, expected: Mapping[str, float], floor: float, held: Mapping[str, int]
) -> list[tuple[float, WarmUp]]:
    """The loads that are possible on the node, each with its gain."""
    inside = [card for card in node.models if card.loaded]
    free = node.memory.limit_bytes - sum(card.memory_bytes for card in inside)
    value = {card.name: worth(card, expected.get(card.name, 0.0), held[card.name] - 1) for card in inside}
    inside.sort(key=lambda card: (value[card.name] / max(card.memory_bytes, 1), card.name))
    found = []
    for card in node.models:
        if card.loaded or expected.get(card.name, 0.0) < floor:
            continue
        leaving: list[str] = []
        room, lost = free, 0.0
        for other in inside:
            if room >= card.memory_bytes:
                break
            if other.memory_bytes:
                leaving.append(other.name)
                room += other.memory_bytes
                lost += value[other.name]
        gained = worth(card, expected[card.name], held[card.name])
        if room >= card.memory_bytes and gained > MIN_GAIN_RATIO * lost:
            found.append((gained - lost, WarmUp(node=node.id, model=card.name, leaving=tuple(leaving))))
    return found
