"""The subtasks of a question and what each of them needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work for a specialist. `inputs` are the numbers of tasks whose results it gets."""

    id: int
    specialist: str
    task: str
    inputs: tuple[int, ...] = ()

    def __str__(self) -> str:
        after = f" after {', '.join(str(each) for each in self.inputs)}" if self.inputs else ""
        return f"{self.id}{after}: {self.specialist} ({self.task})"


@dataclass(frozen=True, slots=True)
class TaskGraph:
    """Tasks, each behind those it needs. `mended` says what was put right in the plan, '' if nothing was, and
    `step` is the name of the one that wrote it."""

    tasks: tuple[Task, ...]
    mended: str = ""
    step: str = ""
    followers: Mapping[int, tuple[int, ...]] = field(init=False)
    """By task: those that need its result."""

    def __post_init__(self) -> None:
        followers: dict[int, tuple[int, ...]] = {task.id: () for task in self.tasks}
        for task in self.tasks:
            for needed in task.inputs:
                followers[needed] = (*followers.get(needed, ()), task.id)
        object.__setattr__(self, "followers", followers)

    def ends(self, among: Collection[int]) -> list[int]:
        """Of these tasks, those whose results no other of them has seen: the sinks of the graph, where
        all are among them."""
        return [
            task.id
            for task in self.tasks
            if task.id in among and not any(each in among for each in self.followers[task.id])
        ]

    def __str__(self) -> str:
        return "; ".join(str(task) for task in self.tasks)
