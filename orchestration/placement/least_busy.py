"""The simplest placement: the live node with most free slots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestration.messages import NodeInfo


def free_slots(node: NodeInfo, in_flight: int) -> int:
    """Slots of `node` that are free as far as one dispatcher knows.

    `in_flight` is what it has sent there itself and is exact; the node's own count includes what other
    dispatchers sent but is up to a heartbeat old. The larger of the two is the safe guess.
    """
    if node.draining:
        return 0
    return max(0, node.slots - max(node.running, in_flight))


def least_busy(
    nodes: Iterable[NodeInfo], in_flight: Mapping[str, int], *, without: frozenset[str] = frozenset()
) -> NodeInfo | None:
    """The node with most free slots, by id where they are equal; None when none has room."""
    best: NodeInfo | None = None
    best_free = 0
    for node in nodes:
        if node.id in without:
            continue
        free = free_slots(node, in_flight.get(node.id, 0))
        if free > best_free or (free == best_free and best is not None and node.id < best.id):
            best, best_free = node, free
    return best
