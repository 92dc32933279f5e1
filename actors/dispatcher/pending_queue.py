"""Generations that wait for a node: by model, most urgent first, oldest first among equals.

What is less urgent never starves: while it waits, one in `TURNS_PER_PRIORITY` of the starts is its own.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable

from actors.dispatcher.job import Job
from orchestration.messages import Priority

RANK = {priority: rank for rank, priority in enumerate(Priority)}
TURNS_PER_PRIORITY = {Priority.INTERACTIVE: 1, Priority.STANDARD: 8, Priority.BATCH: 16}
"""A waiting generation of this priority goes first once so many of a more urgent one went before it. With
all three waiting, interactive work gets 13 starts in 16, standard 2 and batch 1."""
_TURNS = [TURNS_PER_PRIORITY[priority] for priority in Priority]
_NONE = [0] * len(RANK)


class PriorityQueues:
    """The three lines of one model. A job that leaves from the middle stays, marked, until it is met."""

    __slots__ = ("counts", "jobs", "passed")

    def __init__(self) -> None:
        self.jobs: list[deque[Job]] = [deque() for _ in RANK]
        self.counts = [0] * len(RANK)
        """Number of waiting jobs, by rank."""
        self.passed = [0] * len(RANK)
        """Starts of more urgent work while this rank waited, since its own last start."""

    def head(self, rank: int) -> Job | None:
        line = self.jobs[rank]
        while line and not line[0].waits:
            line.popleft()
        return line[0] if line else None

    def first(self) -> Job | None:
        """The most urgent, unless it is another's turn."""
        for rank in range(len(RANK) - 1, 0, -1):
            if self.counts[rank] and self.passed[rank] >= _TURNS[rank] - 1:
                return self.head(rank)
        return next((job for rank in range(len(RANK)) if (job := self.head(rank)) is not None), None)

    def in_order(self, most: int) -> list[Job]:
        """The first, and after it all others, most urgent first."""
        first = self.first()
        others = (job for line in self.jobs for job in line if job.waits and job is not first)
        return [] if first is None else [first, *itertools.islice(others, most - 1)]

    def left(self, rank: int) -> None:
        """One of this rank waits no more."""
        self.counts[rank] -= 1
        self.passed[rank] = 0
        for lesser in range(rank + 1, len(RANK)):
            if self.counts[lesser]:
                self.passed[lesser] += 1


class PendingQueue:
    """All models' lines."""

    def __init__(self) -> None:
        self._lines: dict[str, PriorityQueues] = {}

    def __len__(self) -> int:
        return sum(sum(lines.counts) for lines in self._lines.values())

    @property
    def models(self) -> list[str]:
        return list(self._lines)

    def ahead_of_each(self, model: str) -> Iterable[int]:
        """For each priority, most urgent first, how many wait that are as urgent or more."""
        return itertools.accumulate(self.of_each(model))

    def of_each(self, model: str) -> list[int]:
        """How many wait of each priority, most urgent first."""
        lines = self._lines.get(model)
        return _NONE if lines is None else lines.counts

    def push(self, job: Job) -> None:
        lines = self._lines.get(job.queue.model)
        if lines is None:
            lines = self._lines[job.queue.model] = PriorityQueues()
        rank = RANK[job.queue.priority]
        job.waits = True
        lines.jobs[rank].append(job)
        lines.counts[rank] += 1

    def in_order(self, model: str, most: int) -> list[Job]:
        """Who is next, and who may overtake it if that does not start yet: at most so many. All go on
        waiting until `remove`."""
        lines = self._lines.get(model)
        return [] if lines is None else lines.in_order(most)

    def remove(self, job: Job) -> None:
        """It waits no more; harmless for one that does not."""
        if not job.waits:
            return
        job.waits = False
        lines = self._lines[job.queue.model]
        lines.left(RANK[job.queue.priority])
        if not any(lines.counts):
            del self._lines[job.queue.model]
