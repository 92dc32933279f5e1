"""The state of a dispatcher at one moment, for tests, status and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherSnapshot:
    """The state of a dispatcher. `generations` are the ids that were pulled and not settled. Mappings leave
    out models and nodes with a count of 0."""

    name: str
    generations: frozenset[str]
    waiting: Mapping[str, tuple[int, ...]]
    """Generations that wait for a node, by model: one count per priority, most urgent first."""
    longest_wait_s: float
    """Since the oldest waiting generation was pulled, in seconds; 0 when none waits."""
    running: Mapping[str, int]
    """Slots taken by this dispatcher, by node."""
    pending_answers: int
    """Answers that are awaited from nodes now."""
    unsettled: int
    """Generations that ended while NATS was away, to be settled once it is back."""
    cancelled: frozenset[str]
    """Ids that were cancelled before their generations were pulled."""
    pulled_models: frozenset[str]
    """Models whose queues are served."""
    silent_nodes: frozenset[str]
    """Nodes that answer no pings."""
    peers: int
    """The number of other live dispatchers."""
    starving: bool
    """Whether work has waited here for longer than `starving_s` with less than half of the share of slots
    taken."""
    prewarm_leader: bool
    """Whether this dispatcher decides which models are loaded ahead."""

    @property
    def total_waiting(self) -> int:
        return sum(sum(counts) for counts in self.waiting.values())

    @property
    def idle(self) -> bool:
        """Whether no work is left."""
        return not (
            self.generations or self.waiting or self.running or self.pending_answers or self.unsettled
        )
