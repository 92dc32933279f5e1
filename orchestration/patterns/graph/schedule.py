"""The order in which the tasks of a graph start, and their execution in that order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

from orchestration.patterns.graph.task import Task, TaskGraph

TaskOrder = Literal["critical-path", "ready"]
"""Which ready task starts first where not all can: the one with the longest path behind it, or the one that
became ready first."""


def ranks(tasks: Sequence[Task], seconds: Mapping[int, float]) -> dict[int, float]:
    """The seconds of the longest path from the start of each task to the end of the graph: the upward rank of
    list scheduling (Topcuoglu, Hariri and Wu 2002, HEFT; after Hu 1961). Each task comes after its inputs."""
    after: dict[int, float] = {}
    found: dict[int, float] = {}
    for task in reversed(tasks):
        found[task.id] = seconds[task.id] + after.get(task.id, 0.0)
        for needed in task.inputs:
            after[needed] = max(after.get(needed, 0.0), found[task.id])
    return found


def critical_path(tasks: Sequence[Task], seconds: Mapping[int, float]) -> tuple[list[int], float]:
    """The longest path through the graph and its seconds; no schedule is faster."""
    rank = ranks(tasks, seconds)
    path: list[int] = []
    open_now = list(rank)
    while open_now:
        path.append(max(open_now, key=lambda each: rank[each]))
        open_now = [task.id for task in tasks if path[-1] in task.inputs]
    return path, max(rank.values(), default=0.0)


class Schedule:
    """The schedule of one graph. `estimate` gives the seconds that a task will take, and may change between
    calls; `done` are tasks that already have a result."""

    def __init__(
        self,
        graph: TaskGraph,
        estimate: Callable[[Task], float],
        *,
        order: TaskOrder = "critical-path",
        done: Collection[int] = (),
    ) -> None:
        self._tasks = {task.id: task for task in graph.tasks if task.id not in done}
        self._followers = graph.followers
        self._estimate = estimate
        self._order = order
        self._needs = {task.id: set(task.inputs) - set(done) for task in self._tasks.values()}
        self._ready: list[int] = []
        self._stopped = False
        self._mark_ready(self._needs)

    @property
    def not_started(self) -> list[Task]:
        """The tasks that have not started, in the order of their ids."""
        return [self._tasks[each] for each in sorted((*self._needs, *self._ready))]

    def next(self) -> Task | None:
        """The task to start now; None where none can."""
        if not self._ready or self._stopped:
            return None
        chosen = self._ready[0]
        if self._order == "critical-path" and len(self._ready) > 1:
            left = [task for task in self._tasks.values() if task.id in self._needs or task.id in self._ready]
            rank = ranks(left, {task.id: self._estimate(task) for task in left})
            chosen = max(self._ready, key=lambda each: rank[each])
        self._ready.remove(chosen)
        return self._tasks[chosen]

    def done(self, task: int) -> None:
        """A task has its result, or will have none: its followers wait for it no longer."""
        followers = [each for each in self._followers[task] if each in self._needs]
        for each in followers:
            self._needs[each].discard(task)
        self._mark_ready(followers)

    def stop(self) -> None:
        """No further task starts."""
        self._stopped = True

    def _mark_ready(self, tasks: Iterable[int]) -> None:
        for each in list(tasks):
            if not self._needs[each]:
                del self._needs[each]
                self._ready.append(each)


async def execute(
    schedule: Schedule, perform: Callable[[Task], Awaitable[bool]], *, max_parallel: int
) -> None:
    """Perform all tasks that can start, at most `max_parallel` at once. `perform` returns whether the task
    has a result; the followers of one without stay `not_started`. Cancelling this stops all running tasks."""
    running = 0

    async def run(task: Task) -> None:
        nonlocal running
        if await perform(task):
            schedule.done(task.id)
        running -= 1
        start_ready()

    def start_ready() -> None:
        nonlocal running
        while running < max_parallel and (task := schedule.next()) is not None:
            running += 1
            group.create_task(run(task))

    async with asyncio.TaskGroup() as group:
        start_ready()
