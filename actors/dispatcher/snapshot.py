"""The state of a dispatcher at one moment, for tests, status and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherSnapshot:
    """`generations` are the ids of all that were pulled and not settled yet. Models and nodes with nothing
    to count are left out of the mappings."""

    name: str
    generations: frozenset[str]
    waiting: Mapping[str, tuple[int, ...]]
    """Generations that wait for a node, by model: one count per priority, most urgent first."""
    longest_wait_s: float
    """Since the oldest waiting generation was pulled, in seconds; 0 when none waits."""
    running: Mapping[str, int]
    """Slots taken by this dispatcher, by node."""
    pending_answers: int
    """Answers of nodes that are awaited now."""
    unsettled: int
    """Generations that ended while NATS was away, to be settled once it is back."""
    cancelled: frozenset[str]
    """Ids that were cancelled before they were pulled."""
    pulled_models: frozenset[str]
    """Models whose queues are served."""
    silent_nodes: frozenset[str]
    """Nodes that answer no pings."""
    peers: int
    """Other dispatchers that were heard lately."""
    starving: bool
    """Work waits here for longer than `starving_s`, and less than half of the share of slots is taken."""
    prewarm_leader: bool
    """Whether this dispatcher decides which models are loaded ahead."""

    @property
    def total_waiting(self) -> int:
        return sum(sum(counts) for counts in self.waiting.values())

    @property
    def idle(self) -> bool:
        """Nothing is left of what went through."""
        return not (
            self.generations or self.waiting or self.running or self.pending_answers or self.unsettled
        )
