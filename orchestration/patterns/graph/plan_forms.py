"""The two forms in which a coordinator writes a plan, and how each is asked for and read.

Both give a `TaskGraph`. A plan of stages numbers its steps: steps with one number run at the same time, and a
later stage sees all results of earlier ones. No choice of numbers can be wrong, so a small model that is held
to the schema always writes a plan that can be carried out. A plan of inputs names the tasks whose results
each task needs. Its schema allows earlier tasks only; what a model that is not held to it writes is checked
by `plan_errors`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from orchestration.messages import ChatMessage
from orchestration.patterns.caller_text import CallerText, is_no_task
from orchestration.patterns.graph.task import Task, TaskGraph
from orchestration.patterns.graph.validation import PlanLimits, TaskDraft, plan_errors
from orchestration.patterns.prompt_texts import (
    PLAN,
    PLAN_STAGES,
    SPLIT,
    SPLIT_INPUTS,
    TEA_QUESTION,
    TEA_REASON,
    TEA_TASKS,
    WHOLE_QUESTION,
)
from orchestration.validation import first_problem

MAX_STAGES = 3
MAX_INPUTS = 3
"""Inputs of one task, so that each has a fair share of what can be passed on."""
REASON_CHARS = 160
CUT_OFF = "it was cut off"

Messages = tuple[ChatMessage, ...]


class InvalidPlan(ValueError):
    """The coordinator's text is not a plan that can be carried out; the message says why."""


class PlanForm(Protocol):
    """One form of a plan."""

    def schema(self, limits: PlanLimits, first: int = 1) -> dict[str, Any]:
        """The JSON schema that guides the plan. Every list and text is bounded, so generation ends."""

    def request(
        self, question: str, specialists: Mapping[str, str], limits: PlanLimits
    ) -> tuple[ChatMessage, ...]:
        """The coordinator's prompt. All of it but the question is the same in every run, so that its prefix
        is computed once; the example in it is what a small model follows."""

    def parse(
        self, text: str, limits: PlanLimits, first: int = 1, caller: CallerText | None = None
    ) -> TaskGraph:
        """The plan in `text`, its tasks numbered from `first`. Where the text was cut off, its whole tasks
        are kept. A task copied from the example, which is not about the caller's question, becomes that
        question itself. Raises `InvalidPlan`."""

    def describe(self, graph: TaskGraph) -> dict[str, Any]:
        """The plan as run events and reports have it."""


class PlanStep(BaseModel):
    """A step of a plan of stages, as a model writes it."""

    model_config = ConfigDict(frozen=True)

    specialist: str
    task: str = Field(min_length=1, max_length=2000)
    stage: int = Field(default=1, ge=1)


class StagesForm:
    """`{"reason": …, "steps": [{"specialist": …, "task": …, "stage": 1}, …]}`."""

    def schema(self, limits: PlanLimits, first: int = 1) -> dict[str, Any]:
        stage = {"type": "integer", "enum": list(range(1, MAX_STAGES + 1))}
        step = _object(specialist=_specialist(limits), task=_task(limits), stage=stage)
        steps = {"type": "array", "minItems": 1, "maxItems": limits.max_tasks, "items": step}
        return _object(reason={"type": "string", "minLength": 5, "maxLength": REASON_CHARS}, steps=steps)

    def request(
        self, question: str, specialists: Mapping[str, str], limits: PlanLimits
    ) -> tuple[ChatMessage, ...]:
        steps = [
            {"specialist": name, "task": task, "stage": 1}
            for name, task in zip(specialists, TEA_TASKS[: min(2, limits.max_tasks)], strict=False)
        ]
        rules = f"Choose 1 to {limits.max_tasks} {PLAN_STAGES}"
        return _request(PLAN, specialists, rules, {"reason": TEA_REASON, "steps": steps}, question)

    def parse(
        self, text: str, limits: PlanLimits, first: int = 1, caller: CallerText | None = None
    ) -> TaskGraph:
        """Repairs what it can: unknown specialists, repeated tasks and steps beyond the limit are left out.
        Raises `InvalidPlan` when no step remains."""
        value, items, is_whole = _read_list(text, "steps")
        repaired = [] if is_whole else [CUT_OFF]
        steps = self._usable(items, limits, caller, repaired)
        if not steps:
            raise InvalidPlan("; ".join(repaired) or "it names no step")
        tasks: list[Task] = []
        times: Counter[str] = Counter()
        for number, step in enumerate(sorted(steps, key=lambda each: each.stage), first):
            times[step.specialist] += 1
            again = times[step.specialist]
            task = Task(
                id=number,
                specialist=step.specialist,
                task=step.task,
                inputs=tuple(each.id for each in tasks if each.stage < step.stage),
                name=step.specialist if again == 1 else f"{step.specialist} {again}",
                stage=step.stage,
            )
            tasks.append(task)
        reason = value.get("reason", "")
        reason = reason.strip() if isinstance(reason, str) else ""
        return TaskGraph(tasks=tuple(tasks), repaired="; ".join(repaired), reason=reason)

    def describe(self, graph: TaskGraph) -> dict[str, Any]:
        steps = [
            {"specialist": each.specialist, "task": each.task, "stage": each.stage} for each in graph.tasks
        ]
        return {"reason": graph.reason, "steps": steps, "repaired": graph.repaired}

    @staticmethod
    def _usable(
        items: Sequence[Any], limits: PlanLimits, caller: CallerText | None, repaired: list[str]
    ) -> list[PlanStep]:
        """The steps that can be carried out. What is wrong with the others is added to `repaired`."""
        steps: list[PlanStep] = []
        for item in items:
            try:
                step = PlanStep.model_validate(item)
            except ValidationError as error:
                repaired.append(f"a step was unreadable ({error.errors()[0]['msg']})")
                continue
            name, task = step.specialist.strip().lower(), step.task.strip()
            if caller is not None and is_no_task(task, caller):
                repaired.append(f"{name} got the task of the example")
                task = WHOLE_QUESTION
            if name not in limits.specialists:
                repaired.append(f"unknown specialist {step.specialist[:40]!r}")
            elif any((name, task) == (other.specialist, other.task) for other in steps):
                repaired.append(f"{name} got the same task twice")
            elif len(steps) == limits.max_tasks:
                repaired.append(f"it had more than {limits.max_tasks} steps")
                break
            else:
                steps.append(PlanStep(specialist=name, task=task, stage=min(step.stage, MAX_STAGES)))
        return steps


class InputsForm:
    """`{"tasks": [{"id": 1, "inputs": [], "specialist": …, "task": …}, …]}`."""

    def schema(self, limits: PlanLimits, first: int = 1) -> dict[str, Any]:
        """`items` is for servers that do not know `prefixItems`; `plan_errors` finds what they let
        through."""
        ids = list(range(first, first + limits.max_tasks))
        known = sorted(limits.known)
        in_order = [self._task_schema([each], [*known, *range(first, each)], limits) for each in ids]
        tasks = {
            "type": "array",
            "minItems": 1,
            "maxItems": limits.max_tasks,
            "prefixItems": in_order,
            "items": self._task_schema(ids, [*known, *ids], limits),
        }
        return _object(tasks=tasks)

    def request(
        self, question: str, specialists: Mapping[str, str], limits: PlanLimits
    ) -> tuple[ChatMessage, ...]:
        names = list(specialists)
        tasks = [
            {"id": number, "inputs": inputs, "specialist": names[(number - 1) % len(names)], "task": task}
            for number, (task, inputs) in enumerate(zip(TEA_TASKS, ([], [], [1, 2]), strict=True), 1)
            if number <= limits.max_tasks and (not inputs or limits.max_depth > 1)
        ]
        rules = f"Write 1 to {limits.max_tasks} {SPLIT_INPUTS}"
        return _request(SPLIT, specialists, rules, {"tasks": tasks}, question)

    def parse(
        self, text: str, limits: PlanLimits, first: int = 1, caller: CallerText | None = None
    ) -> TaskGraph:
        """A task given twice to one specialist is kept once. Raises `InvalidPlan` with everything that is
        wrong."""
        _, items, is_whole = _read_list(text, "tasks")
        try:
            drafts = [TaskDraft.model_validate(item) for item in items]
        except ValidationError as error:
            raise InvalidPlan(f"a task cannot be read: {first_problem(error)}") from error
        wrong = plan_errors(drafts, limits)
        if wrong:
            raise InvalidPlan("; ".join(wrong))
        copied = [draft for draft in drafts if caller is not None and is_no_task(draft.task, caller)]
        own = [
            draft.model_copy(update={"task": WHOLE_QUESTION}) if draft in copied else draft
            for draft in drafts
        ]
        tasks, repeated = _numbered(own, limits, first)
        repaired = [] if is_whole else [CUT_OFF]
        repaired += [f"{draft.specialist} got a task of the example" for draft in copied]
        repaired += [f"the same task was given twice to {name}" for name in repeated]
        return TaskGraph(tasks=tuple(tasks), repaired="; ".join(repaired))

    def describe(self, graph: TaskGraph) -> dict[str, Any]:
        return {"tasks": [self.describe_task(task) for task in graph.tasks], "repaired": graph.repaired}

    @staticmethod
    def describe_task(task: Task) -> dict[str, Any]:
        return {"id": task.id, "inputs": list(task.inputs), "specialist": task.specialist, "task": task.task}

    @staticmethod
    def _task_schema(ids: list[int], before: list[int], limits: PlanLimits) -> dict[str, Any]:
        """The inputs come before the task: 13 of 20 plans of SmolLM2-135M have inputs then, else 1."""
        allowed = before if limits.max_depth > 1 else sorted(limits.known)
        inputs: dict[str, Any] = {"type": "array", "maxItems": min(MAX_INPUTS, len(allowed))}
        if allowed:
            inputs["items"] = {"type": "integer", "enum": allowed}
        number = {"type": "integer", "enum": ids}
        return _object(id=number, inputs=inputs, specialist=_specialist(limits), task=_task(limits))


STAGES, INPUTS = StagesForm(), InputsForm()


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object with all these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _specialist(limits: PlanLimits) -> dict[str, Any]:
    return {"type": "string", "enum": sorted(limits.specialists)}


def _task(limits: PlanLimits) -> dict[str, Any]:
    return {"type": "string", "minLength": 5, "maxLength": limits.task_chars}


def _request(
    head: str, specialists: Mapping[str, str], rules: str, example: Mapping[str, Any], question: str
) -> Messages:
    offered = "\n".join(f"- {name}: {description}" for name, description in specialists.items())
    return (
        ChatMessage(role="user", content=f"{head}\n{offered}\n{rules}\n\nQuestion: {TEA_QUESTION}"),
        ChatMessage(role="assistant", content=json.dumps(example)),
        ChatMessage(role="user", content=question),
    )


def _read_list(text: str, name: str) -> tuple[dict[str, Any], list[Any], bool]:
    """The JSON object in `text`, the items of its list `name`, and whether the object is whole. The last item
    of a list that was cut off is dropped unless it is whole. Raises `InvalidPlan` where there is no
    object."""
    start = text.find("{")
    if start < 0:
        raise InvalidPlan("it is not JSON")
    is_whole = True
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        is_whole = False
        try:
            value = from_json(text[start:], allow_partial=True)
        except ValueError:
            return {}, [], False
    items = value.get(name)
    if not isinstance(items, list):
        return value, [], is_whole
    if not is_whole and list(value)[-1] == name and not text.rstrip("] \t\r\n,").endswith("}"):
        items = items[:-1]
    return value, items, is_whole


def _numbered(drafts: Sequence[TaskDraft], limits: PlanLimits, first: int) -> tuple[list[Task], list[str]]:
    """The tasks, each after its inputs and else in the order as written; and the specialists that got a task
    twice."""
    numbers = {str(each): each for each in limits.known}
    given: dict[tuple[str, str], int] = {}
    tasks: list[Task] = []
    repeated: list[str] = []
    for draft in _in_order(drafts, set(numbers)):
        key = (draft.specialist.lower(), draft.task.casefold())
        if key in given:
            numbers[draft.id] = given[key]
            repeated.append(key[0])
            continue
        number = first + len(tasks)
        inputs = tuple(sorted({numbers[needed] for needed in draft.inputs}))
        tasks.append(Task(id=number, specialist=key[0], task=draft.task, inputs=inputs))
        numbers[draft.id] = given[key] = number
    return tasks, repeated


def _in_order(drafts: Sequence[TaskDraft], known: set[str]) -> Iterator[TaskDraft]:
    waiting = list(drafts)
    while waiting:
        draft = next(each for each in waiting if known.issuperset(each.inputs))
        waiting.remove(draft)
        known.add(draft.id)
        yield draft
