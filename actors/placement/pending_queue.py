"""Generations that wait for a node, by model: most urgent first, and oldest first within a priority.

Less urgent work does not starve: while it waits, every n-th start is its own (`START_INTERVALS`).
"""

from __future__ import annotations

import itertools
import time
from bisect import bisect
from collections import deque
from collections.abc import Iterable
from operator import attrgetter
from typing import Generic, TypeVar

from actors.placement.job import Job
from orchestration.messages import Priority

J = TypeVar("J", bound=Job)
RANK = {priority: rank for rank, priority in enumerate(Priority)}
START_INTERVALS = {Priority.INTERACTIVE: 1, Priority.STANDARD: 8, Priority.BATCH: 16}
"""While generations of this priority wait, one of them gets every n-th start. With all three waiting,
interactive work gets 13 of 16 starts, standard 2 and batch 1."""
URGENCY = {Priority.INTERACTIVE: 8.0, Priority.STANDARD: 2.0, Priority.BATCH: 1.0}
"""The weight of a second of waiting, by priority, when the next model is chosen."""
_INTERVALS = [START_INTERVALS[priority] for priority in Priority]
_NONE = [0] * len(RANK)
_received_at = attrgetter("received_at")


class PriorityQueues(Generic[J]):
    """The waiting generations of one model, one queue per priority."""

    __slots__ = ("jobs", "passed")

    def __init__(self) -> None:
        self.jobs: list[deque[J]] = [deque() for _ in RANK]
        self.passed = [0] * len(RANK)
        """Starts of more urgent work while this rank waited, since its own last start."""

    @property
    def counts(self) -> list[int]:
        """Number of waiting jobs, by rank."""
        return [len(queue) for queue in self.jobs]

    def first(self) -> J | None:
        """The most urgent job, unless a lower rank has its turn."""
        for rank in range(len(RANK) - 1, 0, -1):
            if self.jobs[rank] and self.passed[rank] >= _INTERVALS[rank] - 1:
                return self.jobs[rank][0]
        return next((queue[0] for queue in self.jobs if queue), None)

    def in_order(self, limit: int) -> list[J]:
        """Up to `limit` jobs: the first one, then all others, most urgent first."""
        first = self.first()
        others = (job for queue in self.jobs for job in queue if job is not first)
        return [] if first is None else [first, *itertools.islice(others, limit - 1)]

    def add(self, job: J) -> None:
        queue = self.jobs[RANK[job.priority]]
        if queue and queue[-1].received_at > job.received_at:  # it comes back from a node
            queue.insert(bisect(queue, job.received_at, key=_received_at), job)
        else:
            queue.append(job)

    def remove(self, job: J) -> None:
        rank = RANK[job.priority]
        self.jobs[rank].remove(job)
        self.passed[rank] = 0
        for lower in range(rank + 1, len(RANK)):
            if self.jobs[lower]:
                self.passed[lower] += 1


class PendingQueue(Generic[J]):
    """The waiting generations of all models."""

    def __init__(self) -> None:
        self._queues: dict[str, PriorityQueues[J]] = {}

    def __len__(self) -> int:
        return sum(sum(queues.counts) for queues in self._queues.values())

    @property
    def models(self) -> list[str]:
        return list(self._queues)

    def cumulative_counts(self, model: str) -> Iterable[int]:
        """For each priority, most urgent first: the number of waiting jobs that are at least as urgent."""
        return itertools.accumulate(self.counts_of(model))

    def counts_of(self, model: str) -> list[int]:
        """The number of waiting jobs for each priority, most urgent first."""
        queues = self._queues.get(model)
        return _NONE if queues is None else queues.counts

    def most_urgent(self, models: Iterable[str]) -> list[str]:
        """`models`, which all wait, the one that needs a node most urgently first."""
        now = time.monotonic()
        return sorted(models, key=lambda model: self.urgency(model, now), reverse=True)

    def urgency(self, model: str, now: float) -> float:
        """How urgently `model`, which waits, needs a node: the time that its next job has waited until `now`,
        weighted by priority."""
        (job,) = self.in_order(model, 1)
        return (now - job.received_at) * URGENCY[job.priority]

    def push(self, job: J) -> None:
        queues = self._queues.get(job.model)
        if queues is None:
            queues = self._queues[job.model] = PriorityQueues()
        job.waits = True
        queues.add(job)

    def in_order(self, model: str, limit: int) -> list[J]:
        """Up to `limit` jobs: the next one, then those that may overtake it if it does not start. They wait
        until `remove`."""
        queues = self._queues.get(model)
        return [] if queues is None else queues.in_order(limit)

    def remove(self, job: J) -> None:
        """Take a job out; does nothing for a job that does not wait."""
        if not job.waits:
            return
        job.waits = False
        queues = self._queues[job.model]
        queues.remove(job)
        if not any(queues.counts):
            del self._queues[job.model]
