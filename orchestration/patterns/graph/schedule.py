"""Which tasks can begin now, and which of them first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

from orchestration.patterns.graph.task import Task, TaskGraph

TaskOrder = Literal["critical-path", "ready"]
"""What begins first where not all can: that on which the longest rest hangs, or what could begin first."""


def ranks(tasks: Sequence[Task], seconds: Mapping[int, float]) -> dict[int, float]:
    """For each task the seconds of the longest path from its beginning to the end of the graph: the upward
    rank of list scheduling (Topcuoglu, Hariri and Wu 2002, HEFT; after Hu 1961). `tasks` stand behind those
    they need."""
    after: dict[int, float] = {}
    found: dict[int, float] = {}
    for task in reversed(tasks):
        found[task.id] = seconds[task.id] + after.get(task.id, 0.0)
        for needed in task.inputs:
            after[needed] = max(after.get(needed, 0.0), found[task.id])
    return found


def critical_path(tasks: Sequence[Task], seconds: Mapping[int, float]) -> tuple[list[int], float]:
    """The longest path through the graph and its seconds: no schedule is faster."""
    rank = ranks(tasks, seconds)
    path: list[int] = []
    open_now = list(rank)
    while open_now:
        path.append(max(open_now, key=lambda each: rank[each]))
        open_now = [task.id for task in tasks if path[-1] in task.inputs]
    return path, max(rank.values(), default=0.0)


class Schedule:
    """Of one graph. `estimate` gives the seconds that a task will take, and may know better each time; `done`
    are tasks whose results are there from the beginning."""

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
        self._let_begin(self._needs)

    @property
    def held(self) -> list[Task]:
        """Those that have not begun."""
        return [self._tasks[each] for each in sorted((*self._needs, *self._ready))]

    def next(self) -> Task | None:
        """The task to begin now; None where none can."""
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
        """The result of a task is there."""
        self._met(task)

    def without(self, tasks: Iterable[int]) -> None:
        """These will bring no result: those that need it go on without."""
        for each in tasks:
            self._met(each)

    def stop(self) -> None:
        """Nothing more begins."""
        self._stopped = True

    def _met(self, task: int) -> None:
        followers = [each for each in self._followers[task] if each in self._needs]
        for each in followers:
            self._needs[each].discard(task)
        self._let_begin(followers)

    def _let_begin(self, tasks: Iterable[int]) -> None:
        for each in list(tasks):
            if not self._needs[each]:
                del self._needs[each]
                self._ready.append(each)
