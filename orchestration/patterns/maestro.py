"""`orchestra/maestro`: the coordinator plans, specialists work, the critic reviews, one answer is written.

    analysis ──▶ plan ──▶ stage 1: specialists in parallel ──▶ stage 2 … ──▶ review ──▶ synthesis (streamed)
                               ▲                                               │
                               └──── specialists revise, until it passes ──────┘

A specialist that fails is tried again, and the others go on without it; the run fails only when all do. Where
the coordinator writes no valid plan in two attempts, it answers alone, as `single` does. A failed analysis or
review is left out. Progress says all of this.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from pydantic import Field

from orchestration.errors import BackendFailed, BudgetExceeded, InvalidGuide
from orchestration.messages import GuidedDecoding, Run, Sampling, TextDelta
from orchestration.patterns.answer_check import problem_of
from orchestration.patterns.base import StepOptions, StepResult
from orchestration.patterns.caller_text import CallerText, is_of_an_example
from orchestration.patterns.contributions import contributions
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.graph import (
    STAGES,
    PlanLimits,
    Planner,
    TaskExecutor,
    TaskGraph,
    TaskResult,
    results_text,
)
from orchestration.patterns.prompt_texts import REMARKS_HEAD
from orchestration.patterns.review import Review
from orchestration.patterns.run_context import COORDINATOR, CRITIC, RunContext
from orchestration.patterns.single import single
from orchestration.patterns.synthesis import SynthesisInput, synthesis
from orchestration.patterns.task_analysis import (
    InvalidAnalysis,
    TaskAnalysis,
    analysis_request,
    analysis_schema,
    parse_analysis,
)

MIN_ANALYSIS_CALLS = 6
MIN_ANALYSIS_TOKENS = 3000
"""A budget below these is better spent on the specialists than on an analysis."""


class MaestroSettings(PatternSettings):
    """Settings of the steps before and after the specialists' work."""

    specialists: int | None = Field(default=None, ge=1, le=8)
    """Maximum steps of the plan, within the deployment's `limits.max_specialists`."""
    analysis: bool = True
    """Whether the question is analysed before the plan: what is asked, and the criteria of the verdict."""
    critic: bool = True
    revisions: int = Field(default=1, ge=0, le=3)
    """Rounds in which specialists fix what the critic says they must."""
    pass_at: float = Field(default=6.0, ge=1, le=10)
    """The mean score from which a verdict can pass."""


@pattern("maestro", settings=MaestroSettings)
async def maestro(
    run: Run, context: RunContext, settings: MaestroSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The coordinator plans, specialists work, the critic has them revise, and one answer is written.

    Raises `InvalidRequest` when nothing is asked, and the first specialist's error when all fail.
    """
    conversation = await Conversation.on(context)
    analysis = await _analyse(conversation, context) if settings.analysis else TaskAnalysis()
    question = f"{conversation}{analysis}"
    max_specialists = context.limits.max_specialists
    max_tasks = min(settings.specialists or max_specialists, max_specialists)
    limits = PlanLimits(
        specialists=context.specialists,
        max_tasks=max_tasks,
        task_chars=context.limits.task_chars(max_tasks),
    )
    graph = await Planner(context, question, limits, STAGES).plan()
    executor = await _executed(context, question, graph) if graph is not None else None
    if executor is None or not executor.done:
        why = "no usable plan" if executor is None else "no specialist could be asked"
        await context.progress(f"{why}; the coordinator answers alone")
        async with aclosing(single.inside(run, context)) as items:
            async for item in items:
                yield item
        return
    review = Review(context, analysis, question, pass_at=settings.pass_at, max_revisions=settings.revisions)
    if settings.critic and CRITIC in context.agents:
        await review.run(executor)
    results = [executor.results[task.id] for task in executor.graph.tasks]
    async with aclosing(
        synthesis(context, conversation, _synthesis_input(review, results, executor.tokens))
    ) as items:
        async for item in items:
            if isinstance(item, StepResult):
                context.report["maestro"] = {
                    "goal": analysis.goal,
                    "criteria": list(analysis.criteria),
                    "plan": _plan_report(executor.graph, results),
                    "verdicts": review.verdicts,
                    "revisions": review.revisions,
                    "contributions": contributions(item.text, results),
                }
            yield item


async def _executed(context: RunContext, question: str, graph: TaskGraph) -> TaskExecutor:
    """Raises the first error where every specialist failed, unless the budget ended first."""
    executor = TaskExecutor(context, question, graph, max_parallel=len(graph.tasks))
    await executor.perform()
    if executor.failures and executor.done:
        await context.progress(f"goes on without {len(executor.missing)} of {len(graph.tasks)} specialists")
    return executor


def _synthesis_input(review: Review, results: Sequence[TaskResult], tokens: int) -> SynthesisInput:
    """The last specialist's result comes first, since it has seen the others'. Results that are not answers
    are left out of the notes where there are others."""
    remarks = [fix.what for fix in review.verdict.must_fix] if review.verdict is not None else []
    inside = [*review.analysis.notes, *remarks]
    caller = CallerText(review.context.run.messages)
    found = [result for result in results if result.text]
    sound = [each for each in found if not problem_of(each.text, caller, inside)]
    notes = results_text(sound or found, tokens)
    if remarks:
        notes += f"\n\n{REMARKS_HEAD}\n" + "\n".join(f"- {remark}" for remark in remarks)
    answers = [
        (f"this is what {each.task.label} found", each.answer) for each in reversed(found) if each.answer
    ]
    return SynthesisInput(question=review.question, notes=notes, answers=answers, inside=inside)


async def _analyse(conversation: Conversation, context: RunContext) -> TaskAnalysis:
    """The analysis of the question; the default one where the budget is small or the analysis fails."""
    budget, limits = context.run.budget, context.limits
    if (budget.calls or MIN_ANALYSIS_CALLS) < MIN_ANALYSIS_CALLS or (
        budget.tokens or MIN_ANALYSIS_TOKENS
    ) < MIN_ANALYSIS_TOKENS:
        return TaskAnalysis()
    try:
        answer = await context.ask(
            COORDINATOR,
            analysis_request(str(conversation)),
            name="analysis",
            options=StepOptions(
                model=context.trusted_model(COORDINATOR),
                sampling=Sampling(max_tokens=limits.verdict_tokens, seed=context.run.sampling.seed),
                guide=GuidedDecoding(json_schema=analysis_schema(limits.analysis_chars)),
            ),
        )
        analysis = parse_analysis(answer.text)
    except (InvalidGuide, BackendFailed, BudgetExceeded, InvalidAnalysis) as error:
        await context.progress(f"goes on without an analysis: {error}")
        return TaskAnalysis()
    if is_of_an_example(analysis.goal, CallerText(context.run.messages)):
        await context.progress("goes on without an analysis: it is that of the example")
        return TaskAnalysis()
    await context.progress(f"analysis: {analysis.goal} A good answer: {'; '.join(analysis.criteria)}")
    return analysis


def _plan_report(graph: TaskGraph, results: Sequence[TaskResult]) -> dict[str, object]:
    report = STAGES.describe(graph)
    steps = [
        {"step": result.task.step, **step}
        | ({"error": result.error.code} if result.error is not None else {})
        for result, step in zip(results, report["steps"], strict=True)
    ]
    return report | {"steps": steps}
