"""The coordinator's plan: which specialists, with which task, in what order, and why.

The order is a stage number: what has the same one runs in parallel, and a later stage sees what earlier
ones found. Unlike a list of dependencies, no choice of numbers can be wrong, so that a model which is
held to the schema always writes a plan that can be carried out.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.messages import ChatMessage
from orchestration.patterns.answer_check import CallerText, is_no_task
from orchestration.patterns.partial_json import read_list
from orchestration.patterns.prompt_texts import (
    PLAN,
    PLAN_STAGES,
    TEA_QUESTION,
    TEA_REASON,
    TEA_TASKS,
    WHOLE_QUESTION,
)

STAGES = 3
REASON_CHARS = 160
TASK_CHARS = 120


class InvalidPlan(ValueError):
    """What the coordinator wrote is no plan; the text says why."""


class PlanStep(BaseModel):
    """One specialist at work."""

    model_config = ConfigDict(frozen=True)

    specialist: str
    task: str = Field(min_length=1, max_length=2000)
    stage: int = Field(default=1, ge=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order of their stages. `repaired` says what was mended, '' if nothing was."""

    reason: str
    steps: tuple[PlanStep, ...]
    repaired: str = ""

    def stages(self) -> list[tuple[PlanStep, ...]]:
        """The steps that run together, one group after another."""
        return [tuple(group) for _, group in groupby(self.steps, key=lambda step: step.stage)]

    def __str__(self) -> str:
        order = "; then ".join(
            " and ".join(f"{step.specialist} ({step.task})" for step in group) for group in self.stages()
        )
        return f"{order}. Why: {self.reason}" if self.reason else order


def plan_schema(specialists: Collection[str], max_steps: int) -> dict[str, Any]:
    """The JSON schema that guides the plan. Every list and text is bounded, so that it ends."""
    step = {
        "type": "object",
        "properties": {
            "specialist": {"type": "string", "enum": sorted(specialists)},
            "task": {"type": "string", "minLength": 5, "maxLength": TASK_CHARS},
            "stage": {"type": "integer", "enum": list(range(1, STAGES + 1))},
        },
        "required": ["specialist", "task", "stage"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "minLength": 5, "maxLength": REASON_CHARS},
            "steps": {"type": "array", "minItems": 1, "maxItems": max_steps, "items": step},
        },
        "required": ["reason", "steps"],
        "additionalProperties": False,
    }


def plan_request(question: str, specialists: Mapping[str, str], max_steps: int) -> tuple[ChatMessage, ...]:
    """What the coordinator is asked. The example before the question is what a small model goes by;
    everything before the question is the same in every run, so that it is computed once."""
    offered = "\n".join(f"- {name}: {said}" for name, said in specialists.items())
    rules = f"{PLAN}\n{offered}\nChoose 1 to {max_steps} {PLAN_STAGES}"
    example = {
        "reason": TEA_REASON,
        "steps": [
            {"specialist": name, "task": task, "stage": 1}
            for name, task in zip(specialists, TEA_TASKS[: min(2, max_steps)], strict=False)
        ],
    }
    return (
        ChatMessage(role="user", content=f"{rules}\n\nQuestion: {TEA_QUESTION}"),
        ChatMessage(role="assistant", content=json.dumps(example)),
        ChatMessage(role="user", content=question),
    )


def parse_plan(
    text: str, specialists: Collection[str], max_steps: int, caller: CallerText | None = None
) -> Plan:
    """The plan in `text`, mended where it is clear how: a text cut off in the middle keeps its whole
    steps; unknown specialists and repeated tasks go, and so do steps beyond `max_steps`. Who got a task of
    the example, and not of the caller's question, is given the question itself.

    Raises `InvalidPlan` when no step is left.
    """
    try:
        value, raw, whole = read_list(text, "steps")
    except ValueError as error:
        raise InvalidPlan(str(error)) from error
    reason = value.get("reason", "")
    mended = [] if whole else ["it was cut off"]
    kept: list[PlanStep] = []
    for item in raw:
        try:
            step = PlanStep.model_validate(item)
        except ValidationError as error:
            mended.append(f"a step was unreadable ({error.errors()[0]['msg']})")
            continue
        name, task = step.specialist.strip().lower(), step.task.strip()
        if caller is not None and is_no_task(task, caller):
            mended.append(f"{name} got the task of the example")
            task = WHOLE_QUESTION
        if name not in specialists:
            mended.append(f"{step.specialist[:40]!r} is no specialist")
        elif any(name == other.specialist and task == other.task for other in kept):
            mended.append(f"{name} got the same task twice")
        elif len(kept) == max_steps:
            mended.append(f"it had more than {max_steps} steps")
            break
        else:
            kept.append(PlanStep(specialist=name, task=task, stage=min(step.stage, STAGES)))
    if not kept:
        raise InvalidPlan("; ".join(mended) or "it names no step")
    kept.sort(key=lambda step: step.stage)
    return Plan(reason.strip() if isinstance(reason, str) else "", tuple(kept), "; ".join(mended))
