"""The coordinator's plan as a graph of subtasks: what it may look like, how it is asked for and read.

The schema lets a task use earlier ones only, so that a model which is held to it cannot write a cycle, use a
task that is not there, or ask someone unknown. A model that is not held to it may; `validation` finds out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from orchestration.messages import ChatMessage
from orchestration.patterns.answer_check import CallerText, is_no_task
from orchestration.patterns.graph.task import Task, TaskGraph
from orchestration.patterns.graph.validation import PlanLimits, TaskDraft, plan_errors
from orchestration.patterns.partial_json import read_list
from orchestration.patterns.prompt_texts import SPLIT, SPLIT_INPUTS, TEA_QUESTION, TEA_TASKS, WHOLE_QUESTION

TASK_CHARS = 100
MAX_INPUTS = 3
"""Of one task, so that each still has a fair share of what can be passed on."""
TOKENS_PER_TASK = 72
"""Of a plan in JSON: 35 around a task of `TASK_CHARS`."""


class InvalidGraph(ValueError):
    """What the coordinator wrote cannot be carried out; the text says why."""


def graph_schema(bounds: PlanLimits, first: int = 1) -> dict[str, Any]:
    """The JSON schema that guides the plan; every list and text is bounded, so that it ends. Ids count from
    `first`. `items` is for servers that know no `prefixItems`: what they let through is found by
    `plan_errors`."""
    ids = list(range(first, first + bounds.max_tasks))
    known = sorted(bounds.known)
    in_order = [_task_schema([each], [*known, *range(first, each)], bounds) for each in ids]
    return {
        "type": "object",
        "properties": {
            "tasks": {
                "type": "array",
                "minItems": 1,
                "maxItems": bounds.max_tasks,
                "prefixItems": in_order,
                "items": _task_schema(ids, [*known, *ids], bounds),
            }
        },
        "required": ["tasks"],
        "additionalProperties": False,
    }


def _task_schema(ids: list[int], before: list[int], bounds: PlanLimits) -> dict[str, Any]:
    """The inputs come before the words: of twenty plans of SmolLM2-135M 13 have any then, and else 1."""
    allowed = before if bounds.max_depth > 1 else sorted(bounds.known)
    inputs: dict[str, Any] = {"type": "array", "maxItems": min(MAX_INPUTS, len(allowed))}
    if allowed:
        inputs["items"] = {"type": "integer", "enum": allowed}
    return {
        "type": "object",
        "properties": {
            "id": {"type": "integer", "enum": ids},
            "inputs": inputs,
            "specialist": {"type": "string", "enum": sorted(bounds.specialists)},
            "task": {"type": "string", "minLength": 5, "maxLength": TASK_CHARS},
        },
        "required": ["id", "inputs", "specialist", "task"],
        "additionalProperties": False,
    }


def graph_request(
    question: str, specialists: Mapping[str, str], bounds: PlanLimits
) -> tuple[ChatMessage, ...]:
    """What the coordinator is asked. The example before the question is what a small model goes by;
    everything before the question is the same in every run, so that it is computed once."""
    offered = "\n".join(f"- {name}: {said}" for name, said in specialists.items())
    rules = f"{SPLIT}\n{offered}\nWrite 1 to {bounds.max_tasks} {SPLIT_INPUTS}"
    return (
        ChatMessage(role="user", content=f"{rules}\n\nQuestion: {TEA_QUESTION}"),
        ChatMessage(role="assistant", content=json.dumps({"tasks": _example(list(specialists), bounds)})),
        ChatMessage(role="user", content=question),
    )


def _example(names: Sequence[str], bounds: PlanLimits) -> list[dict[str, object]]:
    tasks: tuple[tuple[str, tuple[int, ...]], ...] = tuple(zip(TEA_TASKS, ((), (), (1, 2)), strict=True))
    return [
        {"id": number, "inputs": list(inputs), "specialist": names[(number - 1) % len(names)], "task": task}
        for number, (task, inputs) in enumerate(tasks, 1)
        if number <= bounds.max_tasks and (not inputs or bounds.max_depth > 1)
    ]


def parse_graph(text: str, bounds: PlanLimits, first: int = 1, caller: CallerText | None = None) -> TaskGraph:
    """The plan in `text`, its tasks numbered from `first`. A text that was cut off keeps its whole tasks, and
    of the same task given twice to the same specialist one is left. A task of the example, and not of the
    caller's question, becomes the question itself. All that is said in `mended`.

    Raises `InvalidGraph` that says everything which is wrong.
    """
    try:
        _, raw, whole = read_list(text, "tasks")
        drafts = [TaskDraft.model_validate(item) for item in raw]
    except ValidationError as error:
        at = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in at["loc"])
        raise InvalidGraph(f"a task cannot be read: {where}: {at['msg']}") from error
    except ValueError as error:
        raise InvalidGraph(str(error)) from error
    wrong = plan_errors(drafts, bounds)
    if wrong:
        raise InvalidGraph("; ".join(wrong))
    copied = [draft for draft in drafts if caller is not None and is_no_task(draft.task, caller)]
    own = [
        draft.model_copy(update={"task": WHOLE_QUESTION}) if draft in copied else draft for draft in drafts
    ]
    tasks, twice = _numbered(own, bounds, first)
    mended = ["it was cut off"] if not whole else []
    mended += [f"{draft.specialist} got a task of the example" for draft in copied]
    mended += [f"the same task was given twice to {name}" for name in twice]
    return TaskGraph(tuple(tasks), "; ".join(mended))


def _numbered(drafts: Sequence[TaskDraft], bounds: PlanLimits, first: int) -> tuple[list[Task], list[str]]:
    """The tasks, each behind those it needs and else as they were written; and whose were given twice."""
    numbers = {str(each): each for each in bounds.known}
    given: dict[tuple[str, str], int] = {}
    tasks: list[Task] = []
    twice: list[str] = []
    waiting = list(drafts)
    while waiting:
        draft = next(each for each in waiting if all(needed in numbers for needed in each.inputs))
        waiting.remove(draft)
        key = (draft.specialist.lower(), draft.task.casefold())
        if key in given:
            numbers[draft.id] = given[key]
            twice.append(key[0])
            continue
        number = first + len(tasks)
        inputs = tuple(sorted({numbers[needed] for needed in draft.inputs}))
        tasks.append(Task(id=number, specialist=key[0], task=draft.task, inputs=inputs))
        numbers[draft.id] = given[key] = number
    return tasks, twice
