"""`orchestra/decompose`: splits a question into a graph of subtasks, and answers from their results.

    plan ──▶ task 1 ─┬─▶ task 3 ──▶ synthesis (streamed)
             task 2 ─┘

A subtask starts the moment its inputs are there. A failed one is tried again; then the rest is planned again,
once, or goes on without it. Where the coordinator writes no valid plan in two attempts, it answers alone, as
`single` does. Notes and report say what the answer lacks.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from pydantic import Field

from orchestration.messages import Run, TextDelta
from orchestration.patterns.answer_check import problem_of
from orchestration.patterns.base import StepResult
from orchestration.patterns.caller_text import CallerText
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.graph import (
    INPUTS,
    PlanLimits,
    Planner,
    TaskExecutor,
    TaskGraph,
    TaskOrder,
    missing_note,
    results_text,
    timing_report,
    title,
)
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.single import single
from orchestration.patterns.synthesis import SynthesisInput, synthesis


class DecomposeSettings(PatternSettings):
    """How a question is split, and how its subtasks run."""

    max_tasks: int = Field(default=6, ge=1, le=16)
    max_depth: int = Field(default=4, ge=1, le=16)
    """Subtasks that wait for each other in a row."""
    max_parallel: int = Field(default=8, ge=1, le=32)
    """Subtasks that run at once."""
    order: TaskOrder = "critical-path"
    """Which ready subtasks start first where not all can: those with the longest path behind them, by
    measured times; or those that became ready first."""
    replan: bool = True
    """Whether the rest is planned again, once, when a subtask fails twice."""


@pattern("decompose", settings=DecomposeSettings)
async def decompose(
    run: Run, context: RunContext, settings: DecomposeSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """Splits the question into subtasks that build on each other, and runs those that can run at once.

    Raises `InvalidRequest` when nothing is asked, and the first error when all subtasks fail.
    """
    conversation = await Conversation.on(context)
    limits = PlanLimits(
        specialists=context.specialists,
        max_tasks=settings.max_tasks,
        max_depth=settings.max_depth,
        task_chars=context.limits.task_chars(settings.max_tasks),
    )
    planner = Planner(context, str(conversation), limits, INPUTS)
    graph = await planner.plan() if limits.specialists else None
    executor = await _executed(graph, planner, settings) if graph is not None else None
    if executor is None or not executor.done:
        why = "there was no usable plan" if executor is None else "no subtask could be done within the budget"
        await context.warn(f"{why}: the coordinator answered alone")
        ending = single.inside(run, context)
    else:
        ending = _synthesis(context, conversation, executor)
    async with aclosing(ending) as items:
        async for item in items:
            yield item


async def _executed(graph: TaskGraph, planner: Planner, settings: DecomposeSettings) -> TaskExecutor:
    """Raises the first error where every subtask failed, unless the budget ended first."""
    context = planner.context
    executor = TaskExecutor(
        context, planner.question, graph, order=settings.order, max_parallel=settings.max_parallel
    )
    await executor.perform(planner if settings.replan else None)
    context.report["decompose"] = timing_report(executor.results.values()) | {
        "repaired": executor.graph.repaired,
        "replanned": executor.is_replanned,
        "partial": bool(executor.missing),
    }
    note = missing_note(executor.missing) if executor.done else ""
    if note:
        await context.warn(note)
    return executor


def _synthesis(
    context: RunContext, conversation: Conversation, executor: TaskExecutor
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The answer, from the results that no other subtask has used; where the synthesis fails, those results
    themselves."""
    ids = executor.graph.ends({result.task.id for result in executor.done})
    ends = [executor.results[each] for each in ids]
    caller = CallerText(context.run.messages)
    sound = [result for result in ends if not problem_of(result.text, caller)] or ends
    alone = [(f"this is the result of {title(each)}", each.answer) for each in reversed(sound) if each.answer]
    together = replace(alone[0][1], text="\n\n".join(result.text for result in sound))
    found = SynthesisInput(
        question=str(conversation),
        notes=results_text((*sound, *executor.missing), executor.tokens),
        answers=[("these are the results of the subtasks themselves", together), *alone],
    )
    return synthesis(context, conversation, found, after=executor.steps_of(ids))
