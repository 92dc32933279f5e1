"""`orchestra/decompose`: a question is split into a graph of subtasks, and answered from what they bring.

    plan ──▶ task 1 ─┬─▶ task 3 ──▶ synthesis (streamed)
             task 2 ─┘

A subtask begins the moment its inputs are there. One that fails is tried again, then what is left is planned
anew, once, or goes on without it. A plan that cannot be used, twice, makes it a `single`. What an answer is
without is said in its notes and its report.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from pydantic import Field

from orchestration.messages import Run, TextDelta
from orchestration.patterns.answer_check import CallerText, problem_of
from orchestration.patterns.base import StepResult
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.graph import (
    PlanLimits,
    Planner,
    TaskExecutor,
    TaskGraph,
    TaskOrder,
    execution_report,
    missing_note,
    passed_on,
    title,
)
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.single import single
from orchestration.patterns.synthesis import SynthesisInput, synthesis


class DecomposeSettings(PatternSettings):
    """How a question is split up, and how its subtasks are done."""

    max_tasks: int = Field(default=6, ge=1, le=16)
    max_depth: int = Field(default=4, ge=1, le=16)
    """Subtasks that wait for each other in a row."""
    max_parallel: int = Field(default=8, ge=1, le=32)
    """Subtasks at work at once."""
    order: TaskOrder = "critical-path"
    """Which begin first where not all can: those on which the longest rest hangs, by the times that were
    measured; or those that could begin first."""
    replan: bool = True
    """Whether what is left is planned anew, once, when a subtask fails twice."""


@pattern("decompose", settings=DecomposeSettings)
async def decompose(
    run: Run, context: RunContext, settings: DecomposeSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """Splits the question into subtasks that need each other, and does at once what can be done at once.

    Raises `InvalidRequest` when nothing is asked, and the first error when all subtasks fail.
    """
    talk = await Conversation.on(context)
    bounds = PlanLimits(
        specialists=context.specialists, max_tasks=settings.max_tasks, max_depth=settings.max_depth
    )
    planner = Planner(context, talk, bounds)
    graph = await planner.plan() if bounds.specialists else None
    crew = await _carried_out(graph, planner, settings) if graph is not None else None
    if crew is None or not crew.done:
        why = "there was no usable plan" if crew is None else "no subtask could be done within the budget"
        await context.warn(f"{why}: the coordinator answered alone")
        ending = single.inside(run, context)
    else:
        ending = _synthesis(context, talk, crew)
    async with aclosing(ending) as items:
        async for item in items:
            yield item


async def _carried_out(graph: TaskGraph, planner: Planner, settings: DecomposeSettings) -> TaskExecutor:
    """Raises the first error when every subtask failed, unless the budget had a part in that."""
    context = planner.context
    crew = TaskExecutor(
        context, planner.talk, graph, order=settings.order, max_parallel=settings.max_parallel
    )
    await crew.perform(planner if settings.replan else None)
    context.report["decompose"] = execution_report(crew)
    if crew.done:
        said = missing_note(crew)
        if said:
            await context.warn(said)
    elif not crew.is_out_of_budget and crew.failures[0].error is not None:
        raise crew.failures[0].error
    return crew


def _synthesis(
    context: RunContext, talk: Conversation, crew: TaskExecutor
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The answer, from the results that no other subtask has seen; those themselves, where it cannot be."""
    ends = [crew.results[each] for each in crew.graph.ends({result.task.id for result in crew.done})]
    caller = CallerText(context.run.messages)
    sound = [result for result in ends if not problem_of(result.text, caller)] or ends
    alone = [(f"this is the result of {title(each)}", each.answer) for each in reversed(sound) if each.answer]
    together = replace(alone[0][1], text="\n\n".join(result.text for result in sound))
    brought = SynthesisInput(
        question=str(talk),
        notes=passed_on((*sound, *crew.missing), crew.tokens),
        answers=[("these are the results of the subtasks themselves", together), *alone],
    )
    return synthesis(context, talk, brought, after=crew.steps_of(result.task.id for result in ends))
