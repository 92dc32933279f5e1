"""`orchestra/maestro`: the coordinator plans, specialists work, the critic reviews, one answer comes out.

    analysis ──▶ plan ──▶ stage 1: specialists in parallel ──▶ stage 2 … ──▶ review ──▶ synthesis (streamed)
                               ▲                                               │
                               └────── those concerned revise, until it passes ┘

A specialist that fails leaves the others at work; only when all fail does the run. A plan that cannot be
used, twice, makes it a `single`. An analysis or a critic that fails is left out. All of it is said in the
progress.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from pydantic import Field

from orchestration.errors import BackendFailed, BudgetExceeded, InvalidGuide
from orchestration.messages import Guide, Run, Sampling, TextDelta
from orchestration.patterns.answer_check import CallerText, is_of_an_example, problem_of
from orchestration.patterns.base import StepResult
from orchestration.patterns.contributions import contributions
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.plan import InvalidPlan, Plan, parse_plan, plan_request, plan_schema
from orchestration.patterns.prompt_texts import REMARKS_HEAD
from orchestration.patterns.review import Review
from orchestration.patterns.run_context import COORDINATOR, CRITIC, RunContext
from orchestration.patterns.single import single
from orchestration.patterns.specialists import SpecialistResult, Specialists
from orchestration.patterns.synthesis import SynthesisInput, synthesis
from orchestration.patterns.task_analysis import (
    InvalidAnalysis,
    TaskAnalysis,
    analysis_request,
    analysis_schema,
    parse_analysis,
)

ANALYSED_CALLS = 6
ANALYSED_TOKENS = 3000
"""A budget below these is better spent on the specialists than on an analysis."""


class MaestroSettings(PatternSettings):
    """How much is done before and after the specialists' work."""

    specialists: int | None = Field(default=None, ge=1, le=8)
    """Steps of the plan at most, within the deployment's `limits.max_specialists`."""
    analysis: bool = True
    """Whether the question is analysed before the plan: what is asked, and the criteria of the verdict."""
    critic: bool = True
    revisions: int = Field(default=1, ge=0, le=3)
    """Rounds in which those concerned fix what the critic says they must."""
    pass_at: float = Field(default=6.0, ge=1, le=10)
    """The mean score from which a verdict can pass."""


@pattern("maestro", settings=MaestroSettings)
async def maestro(
    run: Run, stage: RunContext, settings: MaestroSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The coordinator plans, specialists work, the critic has them revise, and one text comes out of it.

    Raises `InvalidRequest` when nothing is asked, and the first specialist's error when all fail.
    """
    talk = await Conversation.on(stage)
    brief = await _analyse(talk, run, stage) if settings.analysis else TaskAnalysis()
    question = f"{talk}{brief}"
    most = stage.limits.max_specialists
    plan = await _plan(question, run, stage, min(settings.specialists or most, most))
    team = Specialists(stage, plan, question) if plan is not None else None
    findings = await team.consult() if team is not None else []
    if plan is None or team is None or not any(finding.text for finding in findings):
        why = "no usable plan" if plan is None else "no specialist could be asked"
        await stage.progress(f"{why}; the coordinator answers alone")
        async with aclosing(single.inside(run, stage)) as items:
            async for item in items:
                yield item
        return
    review = Review(stage, brief, question, pass_at=settings.pass_at, revisions=settings.revisions)
    if settings.critic and CRITIC in stage.agents:
        findings = await review.hold(findings, team)
    brought = _brought(stage, review, findings)
    async with aclosing(synthesis(stage, talk, brought)) as items:
        async for item in items:
            if isinstance(item, StepResult):
                stage.report["maestro"] = {
                    "asked": brief.asked,
                    "criteria": list(brief.criteria),
                    "plan": _reported(plan, findings),
                    "verdicts": review.verdicts,
                    "revisions": review.revisions,
                    "contributions": contributions(item.text, findings),
                }
            yield item


def _brought(stage: RunContext, review: Review, findings: Sequence[SpecialistResult]) -> SynthesisInput:
    """What the last specialist found comes first, who has seen what the others did. Findings that are no
    answers are left out of the notes, where there are others."""
    remarks = [fix.what for fix in review.verdict.must_fix] if review.verdict is not None else []
    inside = [*review.brief.notes, *remarks]
    caller = CallerText(stage.run.messages)
    found = [finding for finding in findings if finding.text]
    sound = [each for each in found if not problem_of(each.text, caller, inside)]
    notes = "\n\n".join(f"{each.step.specialist}:\n{each.passed}" for each in sound or found)
    if remarks:
        notes += f"\n\n{REMARKS_HEAD}\n" + "\n".join(f"- {remark}" for remark in remarks)
    answers = [(f"this is what {each.name} found", _answer(stage, each)) for each in reversed(found)]
    return SynthesisInput(question=review.question, notes=notes, answers=answers, inside=inside)


def _answer(stage: RunContext, finding: SpecialistResult) -> StepResult:
    done = {step.name: step for step in stage.steps}[finding.name]
    return replace(StepResult.of(done), text=finding.text)


def _sampling(run: Run, max_tokens: int, temperature: float | None = None) -> Sampling:
    """Of a step inside: of what the caller said only the seed counts."""
    return Sampling(max_tokens=max_tokens, seed=run.sampling.seed, temperature=temperature)


async def _analyse(talk: Conversation, run: Run, stage: RunContext) -> TaskAnalysis:
    """What is asked; the criteria of any answer where that cannot be said, or the budget is small."""
    budget = run.budget
    if (budget.calls or ANALYSED_CALLS) < ANALYSED_CALLS or (
        budget.tokens or ANALYSED_TOKENS
    ) < ANALYSED_TOKENS:
        return TaskAnalysis()
    try:
        answer = await stage.ask(
            COORDINATOR,
            analysis_request(str(talk)),
            name="analysis",
            model=stage.trusted_model(COORDINATOR),
            sampling=_sampling(run, stage.limits.verdict_tokens),
            guide=Guide(json_schema=analysis_schema()),
        )
        brief = parse_analysis(answer.text)
    except (InvalidGuide, BackendFailed, BudgetExceeded, InvalidAnalysis) as error:
        await stage.progress(f"goes on without an analysis: {error}")
        return TaskAnalysis()
    if is_of_an_example(brief.asked, CallerText(run.messages)):
        await stage.progress("goes on without an analysis: it is that of the example")
        return TaskAnalysis()
    await stage.progress(f"analysis: {brief.asked} A good answer: {'; '.join(brief.criteria)}")
    return brief


async def _plan(question: str, run: Run, stage: RunContext, most: int) -> Plan | None:
    """The coordinator's plan, asked for at most twice; None when there is none to be had. Where the most
    trusted model cannot be guided, the coordinator's own is asked.

    Raises what would fail any other step as well, such as `NoNode`.
    """
    known, limits = stage.specialists, stage.limits
    guide = Guide(json_schema=plan_schema(known, most))
    messages = plan_request(question, known, most)
    model = stage.trusted_model(COORDINATOR)
    for attempt in (1, 2):
        try:
            answer = await stage.ask(
                COORDINATOR,
                messages,
                name="plan" if attempt == 1 else "plan again",
                sampling=_sampling(run, limits.plan_tokens, 0.0 if attempt == 2 else None),
                guide=guide,
                model=model,
            )
            plan = parse_plan(answer.text, known, most, CallerText(run.messages))
        except (InvalidGuide, BackendFailed, BudgetExceeded) as error:
            await stage.progress(f"there is no plan: {error.message}")
            if model is None or isinstance(error, BudgetExceeded):
                return None
            model = None
            continue
        except InvalidPlan as error:
            await stage.progress(f"the plan is not usable: {error}")
            continue
        mended = f" (repaired: {plan.repaired})" if plan.repaired else ""
        await stage.progress(f"plan{mended}: {plan}")
        await stage.event(
            "plan",
            reason=plan.reason,
            steps=[step.model_dump() for step in plan.steps],
            repaired=plan.repaired,
        )
        return plan
    return None


def _reported(plan: Plan, findings: Sequence[SpecialistResult]) -> dict[str, object]:
    return {
        "reason": plan.reason,
        "repaired": plan.repaired,
        "steps": [
            {"step": finding.name, **finding.step.model_dump()}
            | ({"error": finding.error.code} if finding.error is not None else {})
            for finding in findings
        ],
    }
