"""What to load where before it is asked for: the replicas that save the most waiting, within each memory.

A replica is worth the seconds of loading that it is expected to save: the chance that at least one generation
comes for it (a Poisson process), times how long its load takes. Those worth least for their size leave first,
and only for something worth clearly more.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestration.messages import ModelCard, NodeInfo

MARGIN = 1.5
"""What comes must be worth so many times what leaves for it, or the two would change places all the time."""
LEAST_LOAD_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """Load `model` on `node`; those `leaving` make room, unless they are in use by then."""

    node: str
    model: str
    leaving: tuple[str, ...]


def worth(card: ModelCard, expected: float, others: int) -> float:
    """Seconds that a replica is expected to save, where so many `others` of the same model are in memory and
    share what comes."""
    return -math.expm1(-expected / (others + 1)) * max(card.load_s, LEAST_LOAD_S)


def plan(nodes: Iterable[NodeInfo], expected: Mapping[str, float], *, floor: float) -> list[Warm]:
    """At most one load for each node, the most valuable first. `floor` is how many generations have to be
    expected at least. Left alone are nodes that hold all they offer, that leave, or whose room is being
    fought for: there whoever waits decides."""
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
    found: list[Warm] = []
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
) -> list[tuple[float, Warm]]:
    """What may be loaded there, with what that gains."""
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
        if room >= card.memory_bytes and gained > MARGIN * lost:
            found.append((gained - lost, Warm(node=node.id, model=card.name, leaving=tuple(leaving))))
    return found
