"""What is wrong with a plan of subtasks, in words that whoever wrote it can put right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from pydantic import BaseModel, ConfigDict, Field


class TaskDraft(BaseModel):
    """A task as a model wrote it. Ids may be numbers or words."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True, str_strip_whitespace=True)

    id: str = Field(min_length=1, max_length=32)
    specialist: str = Field(max_length=64)
    task: str = Field(min_length=1, max_length=2000)
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """Of a plan: how many tasks at most, and how many of them may wait for each other in a row. `known` are
    tasks that were done before, whose results it may use too."""

    specialists: Collection[str]
    max_tasks: int
    max_depth: int
    known: Collection[int] = ()


def plan_errors(drafts: Sequence[TaskDraft], bounds: PlanLimits) -> list[str]:
    """Everything that is wrong with the plan; nothing, where it can be carried out."""
    if not drafts:
        return ["it has no task"]
    found = list(_counted(drafts, bounds))
    known = {str(each) for each in bounds.known}
    there = {draft.id for draft in drafts}
    for draft in drafts:
        if draft.specialist.lower() not in bounds.specialists:
            offered = ", ".join(sorted(bounds.specialists))
            found.append(
                f"{draft.specialist!r} of task {draft.id} is no specialist; the specialists are {offered}"
            )
        found += [
            f"task {draft.id} needs task {needed[:32]}, which there is not"
            for needed in dict.fromkeys(draft.inputs)
            if needed not in there | known
        ]
    inputs = {draft.id: [needed for needed in draft.inputs if needed in there] for draft in drafts}
    cycle = find_cycle(inputs)
    if cycle:
        found.append(f"tasks {' → '.join(cycle)} wait for each other")
        return found
    task, depth = max(depths(inputs).items(), key=lambda each: each[1])
    if depth > bounds.max_depth:
        found.append(
            f"task {task} is the last of {depth} in a row that wait for each other, and at most "
            f"{bounds.max_depth} may"
        )
    return found


def _counted(drafts: Sequence[TaskDraft], bounds: PlanLimits) -> Iterator[str]:
    if len(drafts) > bounds.max_tasks:
        yield f"it has {len(drafts)} tasks, and at most {bounds.max_tasks} are allowed"
    known = {str(each) for each in bounds.known}
    for name, times in Counter(draft.id for draft in drafts).items():
        if times + (name in known) > 1:
            yield f"the id {name} is given to more than one task"


def find_cycle(inputs: Mapping[str, Collection[str]]) -> list[str]:
    """Tasks that wait for each other, the first named again at the end; empty where none do."""
    try:
        TopologicalSorter(inputs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def depths(inputs: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Of each task, how many stand in the longest row that ends with it. There must be no cycle."""
    found: dict[str, int] = {}
    for name in TopologicalSorter(inputs).static_order():
        found[name] = 1 + max((found[needed] for needed in inputs[name]), default=0)
    return found
