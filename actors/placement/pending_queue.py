"""Generations that wait for a node, by model: most urgent first, and oldest first within a priority.

Less urgent work does not starve: while it waits, every n-th start is its own (`START_INTERVALS`).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from actors.placement.job import Job
from orchestration.messages import Priority

J = TypeVar("J", bound=Job)
RANK = {priority: rank for rank, priority in enumerate(Priority)}
START_INTERVALS = {Priority.INTERACTIVE: 1, Priority.STANDARD: 8, Priority.BATCH: 16}
"""While generations of this priority wait, one of them gets every n-th start. With all three waiting,
interactive work gets 13 of 16 starts, standard 2 and batch 1."""
_INTERVALS = [START_INTERVALS[priority] for priority in Priority]
_NONE = [0] * len(RANK)


class PriorityQueues(Generic[J]):
    """The waiting generations of one model, one queue per priority. A job that leaves from the middle of a
    queue is skipped later."""

    __slots__ = ("counts", "jobs", "passed")

    def __init__(self) -> None:
        self.jobs: list[deque[J]] = [deque() for _ in RANK]
        self.counts = [0] * len(RANK)
        """Number of waiting jobs, by rank."""
        self.passed = [0] * len(RANK)
        """Starts of more urgent work while this rank waited, since its own last start."""

    def head(self, rank: int) -> J | None:
        queue = self.jobs[rank]
        while queue and not queue[0].waits:
            queue.popleft()
        return queue[0] if queue else None

    def first(self) -> J | None:
        """The most urgent job, unless a lower rank has its turn."""
        for rank in range(len(RANK) - 1, 0, -1):
            if self.counts[rank] and self.passed[rank] >= _INTERVALS[rank] - 1:
                return self.head(rank)
        return next((job for rank in range(len(RANK)) if (job := self.head(rank)) is not None), None)

    def in_order(self, limit: int) -> list[J]:
        """Up to `limit` jobs: the first one, then all others, most urgent first."""
        first = self.first()
        others = (job for queue in self.jobs for job in queue if job.waits and job is not first)
        return [] if first is None else [first, *itertools.islice(others, limit - 1)]

    def leave(self, rank: int) -> None:
        """A job of this rank no longer waits."""
        self.counts[rank] -= 1
        self.passed[rank] = 0
        for lower in range(rank + 1, len(RANK)):
            if self.counts[lower]:
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

    def push(self, job: J) -> None:
        queues = self._queues.get(job.model)
        if queues is None:
            queues = self._queues[job.model] = PriorityQueues()
        rank = RANK[job.priority]
        job.waits = True
        queue = queues.jobs[rank]
        if queue and queue[0].received_at > job.received_at:  # it comes back from a node
            queue.appendleft(job)
        else:
            queue.append(job)
        queues.counts[rank] += 1

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
        queues.leave(RANK[job.priority])
        if not any(queues.counts):
            del self._queues[job.model]
