"""The tasks of a plan and what each of them needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import groupby


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work for a specialist. `inputs` are the ids of the tasks whose results it gets. `name` is
    its label where the plan gives no ids; `stage` is its stage in a plan of stages, 0 elsewhere."""

    id: int
    specialist: str
    task: str
    inputs: tuple[int, ...] = ()
    name: str = ""
    stage: int = 0

    @property
    def step(self) -> str:
        """The name of its first step in the run."""
        return self.name or f"task {self.id}"

    @property
    def label(self) -> str:
        """How prompts name it."""
        return self.name or self.specialist

    def __str__(self) -> str:
        after = f" after {', '.join(str(each) for each in self.inputs)}" if self.inputs else ""
        return f"{self.id}{after}: {self.specialist} ({self.task})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGraph:
    """Tasks in an order in which each one comes after its inputs. `repaired` says what was corrected in the
    plan ('' for nothing), `reason` why the coordinator planned so, `step` which step wrote the plan."""

    tasks: tuple[Task, ...]
    repaired: str = ""
    reason: str = ""
    step: str = ""
    followers: Mapping[int, tuple[int, ...]] = field(init=False)
    """The tasks that need the result of each task, by id."""

    def __post_init__(self) -> None:
        followers: dict[int, tuple[int, ...]] = {task.id: () for task in self.tasks}
        for task in self.tasks:
            for needed in task.inputs:
                followers[needed] = (*followers.get(needed, ()), task.id)
        object.__setattr__(self, "followers", followers)

    @property
    def is_staged(self) -> bool:
        """Whether tasks have stages: inputs help a task then, and it can do without them."""
        return any(task.stage for task in self.tasks)

    def stages(self) -> list[tuple[Task, ...]]:
        """The tasks that run together, stage after stage."""
        return [tuple(group) for _, group in groupby(self.tasks, key=lambda task: task.stage)]

    def ends(self, among: Collection[int]) -> list[int]:
        """The ids in `among` that no other task in `among` uses: the sinks of the graph."""
        return [
            task.id
            for task in self.tasks
            if task.id in among and not any(each in among for each in self.followers[task.id])
        ]

    def __str__(self) -> str:
        if not self.is_staged:
            return "; ".join(str(task) for task in self.tasks)
        order = "; then ".join(
            " and ".join(f"{task.specialist} ({task.task})" for task in stage) for stage in self.stages()
        )
        return f"{order}. Why: {self.reason}" if self.reason else order
