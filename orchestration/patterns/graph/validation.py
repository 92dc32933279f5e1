"""Checks of a plan of tasks; each error is worded so that the model that wrote the plan can correct it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from pydantic import BaseModel, ConfigDict, Field

from orchestration.patterns.limits import TASK_CHARS


class TaskDraft(BaseModel):
    """A task as a model writes it. Ids may be numbers or words."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True, str_strip_whitespace=True)

    id: str = Field(min_length=1, max_length=32)
    specialist: str = Field(max_length=64)
    task: str = Field(min_length=1, max_length=2000)
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """Limits of a plan: `max_tasks` tasks, of which at most `max_depth` wait for each other in a row.
    `task_chars` limits the text of each. `known` are the ids of earlier tasks whose results it may use."""

    specialists: Collection[str]
    max_tasks: int
    max_depth: int = 1
    task_chars: int = TASK_CHARS
    known: Collection[int] = ()


def plan_errors(drafts: Sequence[TaskDraft], limits: PlanLimits) -> list[str]:
    """Everything that is wrong with the plan; empty where it can be carried out."""
    if not drafts:
        return ["it has no task"]
    found = list(_counted(drafts, limits))
    known = {str(each) for each in limits.known}
    there = {draft.id for draft in drafts}
    for draft in drafts:
        if draft.specialist.lower() not in limits.specialists:
            offered = ", ".join(sorted(limits.specialists))
            found.append(
                f"unknown specialist {draft.specialist!r} of task {draft.id}; the specialists are {offered}"
            )
        found += [
            f"task {draft.id} needs task {needed[:32]}, which does not exist"
            for needed in dict.fromkeys(draft.inputs)
            if needed not in there | known
        ]
    inputs = {draft.id: [needed for needed in draft.inputs if needed in there] for draft in drafts}
    cycle = find_cycle(inputs)
    if cycle:
        found.append(f"tasks {' → '.join(cycle)} wait for each other")
        return found
    task, depth = max(depths(inputs).items(), key=lambda each: each[1])
    if depth > limits.max_depth:
        found.append(
            f"task {task} is the last of {depth} in a row that wait for each other; at most "
            f"{limits.max_depth} may"
        )
    return found


def _counted(drafts: Sequence[TaskDraft], limits: PlanLimits) -> Iterator[str]:
    if len(drafts) > limits.max_tasks:
        yield f"it has {len(drafts)} tasks; at most {limits.max_tasks} are allowed"
    known = {str(each) for each in limits.known}
    for name, times in Counter(draft.id for draft in drafts).items():
        if times + (name in known) > 1:
            yield f"the id {name} is given to more than one task"


def find_cycle(inputs: Mapping[str, Collection[str]]) -> list[str]:
    """A cycle of tasks that wait for each other, with the first repeated at the end; empty where there is
    none."""
    try:
        TopologicalSorter(inputs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def depths(inputs: Mapping[str, Collection[str]]) -> dict[str, int]:
    """The length of the longest row of tasks that ends with each task. `inputs` must have no cycle."""
    found: dict[str, int] = {}
    for name in TopologicalSorter(inputs).static_order():
        found[name] = 1 + max((found[needed] for needed in inputs[name]), default=0)
    return found
