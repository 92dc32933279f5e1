"""Generations that wait for a node: by model, most urgent first, oldest first among equals."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable

from actors.dispatcher.job import Job
from orchestration.messages import Priority

RANK = {priority: rank for rank, priority in enumerate(Priority)}
_NONE = [0] * len(RANK)


class Waiting:
    """A heap for each model. A job that leaves from the middle stays in its heap, marked, until it is met."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[tuple[int, int, Job]]] = {}
        self._counts: dict[str, list[int]] = {}
        """By model, then by rank."""
        self._arrivals = itertools.count()

    def __len__(self) -> int:
        return sum(sum(counts) for counts in self._counts.values())

    @property
    def models(self) -> list[str]:
        return list(self._counts)

    def ahead_of_each(self, model: str) -> Iterable[int]:
        """For each priority, most urgent first, how many wait that are as urgent or more."""
        return itertools.accumulate(self._counts.get(model, _NONE))

    def push(self, job: Job) -> None:
        model = job.queue.model
        job.waits = True
        heap = self._heaps.setdefault(model, [])
        heapq.heappush(heap, (RANK[job.queue.priority], next(self._arrivals), job))
        self._counts.setdefault(model, [0] * len(RANK))[RANK[job.queue.priority]] += 1

    def first(self, model: str) -> Job | None:
        """Who is next; it goes on waiting until `remove`."""
        heap = self._heaps.get(model)
        while heap:
            job = heap[0][2]
            if job.waits:
                return job
            heapq.heappop(heap)
        return None

    def remove(self, job: Job) -> None:
        """It waits no more; harmless for one that does not."""
        if not job.waits:
            return
        job.waits = False
        model = job.queue.model
        self._counts[model][RANK[job.queue.priority]] -= 1
        if not any(self._counts[model]):
            del self._counts[model]
            del self._heaps[model]
