"""How many generations a dispatcher pulls ahead of the slots that are free."""

from __future__ import annotations

from actors.dispatcher.fallbacks import Fallbacks
from actors.dispatcher.pulled_job import PulledJob
from actors.placement.executor import Executor
from actors.placement.pending_queue import PendingQueue

MAX_PULLED_WHILE_LIMITED = 1024
"""Maximum number of generations of each model that are pulled while all its servers refuse work."""


class PullWindow:
    """`pulled_ahead`: maximum generations of each model that wait here beyond the free slots."""

    def __init__(
        self,
        waiting: PendingQueue[PulledJob],
        executor: Executor,
        fallbacks: Fallbacks,
        pulled_ahead: int,
    ) -> None:
        self.pulled_ahead = pulled_ahead
        self._waiting = waiting
        self._executor = executor
        self._placer = executor.placer
        self._fallbacks = fallbacks

    def room_by_priority(self, model: str) -> list[int]:
        """How many more generations to pull of each priority: one for each free slot, and some for the next
        free slots.

        Waiting work that is less urgent is not counted, or a backlog of batch work would get as many slots as
        interactive work. At least one of each priority waits here, for its turn.
        """
        served = self._fallbacks.serving_model(model)
        free, slots = self._placer.room(served)
        # While all servers refuse work, generations that cannot wait are refused here: pull them.
        ahead = MAX_PULLED_WHILE_LIMITED if self._placer.is_limited(served) else self._ahead(slots)
        counts, cumulative = self._waiting.counts_of(model), self._waiting.cumulative_counts(model)
        return [
            max(0, max(free, ahead) - waiting, min(ahead, 1) - own)
            for own, waiting in zip(counts, cumulative, strict=True)
        ]

    def max_ahead(self, model: str) -> int:
        """Maximum generations of `model` that wait here while no slot is free."""
        return self._ahead(self._placer.room(model)[1])

    def is_short_of_slots(self, model: str, dispatchers: int) -> bool:
        """Whether this one of so many dispatchers has less than half of its share of the model's slots."""
        counts = self._executor.in_flight.counts
        mine = sum(counts.get(node.id, 0) for node in self._executor.registry.serving(model))
        return 2 * mine * dispatchers < self._placer.room(model)[1]

    def _ahead(self, slots: int) -> int:
        return min(self.pulled_ahead, (slots + 1) // 2)
