"""`orchestra/maestro`: the coordinator plans, specialists work, the critic reviews, one answer comes out.

    plan ──▶ stage 1: specialists in parallel ──▶ stage 2 … ──▶ review ──▶ synthesis (streamed)

A specialist that fails leaves the others at work; only when all fail does the run. A plan that cannot be
used, twice, makes it a `single`. A critic that fails is left out. All of it is said in the progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count

from orchestration.errors import BackendFailed, BudgetSpent, InvalidGuide, OrchestraError
from orchestration.messages import ChatMessage, Guide, Run, Sampling
from orchestration.patterns.base import Answer, Part
from orchestration.patterns.clipping import clip
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.plan import InvalidPlan, Plan, PlanStep, parse_plan, plan_request, plan_schema
from orchestration.patterns.single import final_sampling, single
from orchestration.patterns.stage import COORDINATOR, CRITIC, Stage
from orchestration.patterns.verdict import InvalidVerdict, Verdict, parse_verdict, verdict_schema


@dataclass(frozen=True, slots=True)
class Finding:
    """What one specialist brought; `error` is set when it failed."""

    step: PlanStep
    text: str = ""
    error: OrchestraError | None = None


@pattern("maestro")
async def maestro(run: Run, stage: Stage, settings: PatternSettings) -> AsyncGenerator[Part | Answer, None]:
    """Raises `InvalidRequest` when nothing is asked, and the first specialist's error when all fail."""
    talk = Conversation.of(run.messages, stage.limits)
    plan = await _plan(talk, run, stage)
    findings = await _consult(plan, talk, stage) if plan is not None else []
    if not any(finding.text for finding in findings):
        why = "no usable plan" if plan is None else "no specialist could be asked"
        await stage.progress(f"{why}; the coordinator answers alone")
        async with aclosing(single.inside(run, stage)) as items:
            async for item in items:
                yield item
        return
    verdict = await _review(talk, findings, run, stage)
    messages = (*talk.system(), _synthesis(talk, findings, verdict))
    sampling = final_sampling(run, stage.limits)
    async with aclosing(
        stage.stream(COORDINATOR, messages, name="synthesis", sampling=sampling, guide=run.guide)
    ) as items:
        async for item in items:
            yield item


def _sampling(run: Run, max_tokens: int, temperature: float | None = None) -> Sampling:
    """Of a step inside: of what the caller said only the seed counts."""
    said: dict[str, object] = {"max_tokens": max_tokens}
    if run.sampling.seed is not None:
        said["seed"] = run.sampling.seed
    if temperature is not None:
        said["temperature"] = temperature
    return Sampling.model_validate(said)


async def _plan(talk: Conversation, run: Run, stage: Stage) -> Plan | None:
    """The coordinator's plan, asked for at most twice; None when there is none to be had.

    Raises what would fail any other step as well, such as `NoNode`.
    """
    known, limits = stage.specialists, stage.limits
    guide = Guide(json_schema=plan_schema(known, limits.max_specialists))
    messages = plan_request(str(talk), known, limits.max_specialists)
    for attempt in (1, 2):
        try:
            answer = await stage.ask(
                COORDINATOR,
                messages,
                name="plan" if attempt == 1 else "plan again",
                sampling=_sampling(run, limits.plan_tokens, 0.0 if attempt == 2 else None),
                guide=guide,
            )
            plan = parse_plan(answer.text, known, limits.max_specialists)
        except (InvalidGuide, BackendFailed, BudgetSpent) as error:
            await stage.progress(f"there is no plan: {error.message}")
            return None
        except InvalidPlan as error:
            await stage.progress(f"the plan is not usable: {error}")
            continue
        mended = f" (mended: {plan.repaired})" if plan.repaired else ""
        await stage.progress(f"plan{mended}: {plan}")
        return plan
    return None


async def _consult(plan: Plan, talk: Conversation, stage: Stage) -> list[Finding]:
    """All findings in the plan's order. Raises the first error when every specialist failed, unless the
    budget had a part in that."""
    findings: list[Finding] = []
    names = {step.specialist: _names(step.specialist) for step in plan.steps}
    for number, group in enumerate(plan.stages(), 1):
        who = ", ".join(step.specialist for step in group)
        await stage.progress(f"stage {number} of {len(plan.stages())}: {who}")
        before = tuple(findings)
        async with asyncio.TaskGroup() as tasks:
            working = [
                tasks.create_task(_specialist(step, next(names[step.specialist]), talk, before, stage))
                for step in group
            ]
        findings.extend(task.result() for task in working)
    failed = [finding.error for finding in findings if finding.error is not None]
    if len(failed) == len(findings) and not any(isinstance(error, BudgetSpent) for error in failed):
        raise failed[0]
    if failed:
        await stage.progress(f"goes on without {len(failed)} of {len(findings)} specialists")
    return findings


def _names(specialist: str) -> Iterator[str]:
    """Names of a specialist's steps in one run: `code`, `code 2`, …"""
    yield specialist
    for number in count(2):
        yield f"{specialist} {number}"


async def _specialist(
    step: PlanStep, name: str, talk: Conversation, before: Sequence[Finding], stage: Stage
) -> Finding:
    found = _found(before, stage.limits.passed_tokens)
    earlier = f"\n\nWhat others found so far:\n{found}" if found else ""
    request = f"{talk}{earlier}\n\nYour task: {step.task}\nAnswer your task only, briefly."
    try:
        answer = await stage.ask(
            step.specialist,
            (ChatMessage(role="user", content=request),),
            name=name,
            sampling=_sampling(stage.run, stage.limits.specialist_tokens),
        )
    except OrchestraError as error:
        return Finding(step, error=error)
    return Finding(step, clip(answer.text, stage.limits.passed_tokens))


def _found(findings: Sequence[Finding], tokens: int) -> str:
    return "\n\n".join(
        f"{finding.step.specialist} ({finding.step.task}):\n{clip(finding.text, tokens)}"
        for finding in findings
        if finding.text
    )


async def _review(talk: Conversation, findings: Sequence[Finding], run: Run, stage: Stage) -> Verdict | None:
    """The critic's verdict, or None when there is no critic or it failed."""
    if CRITIC not in stage.agents:
        return None
    found = _found(findings, stage.limits.passed_tokens)
    request = (
        f"{talk}\n\nThe specialists' answers:\n{found}\n\n"
        "Review them. Reply in JSON: a score from 1 (useless) to 10 (nothing to add), then the issues."
    )
    try:
        answer = await stage.ask(
            CRITIC,
            (ChatMessage(role="user", content=request),),
            name="review",
            sampling=_sampling(run, stage.limits.verdict_tokens),
            guide=Guide(json_schema=verdict_schema()),
        )
        verdict = parse_verdict(answer.text)
    except (OrchestraError, InvalidVerdict) as error:
        await stage.progress(f"goes on without the critic's review: {error}")
        return None
    await stage.progress(f"review: {verdict}")
    return verdict


def _synthesis(talk: Conversation, findings: Sequence[Finding], verdict: Verdict | None) -> ChatMessage:
    found = "\n\n".join(f"{finding.step.specialist}:\n{finding.text}" for finding in findings if finding.text)
    critic = ""
    if verdict is not None and verdict.issues:
        critic = "\n\nThe critic's remarks:\n" + "\n".join(f"- {issue}" for issue in verdict.issues)
    return ChatMessage(
        role="user",
        content=(
            f"{talk}\n\nNotes from the team:\n{found}{critic}\n\n"
            "Answer the question clearly and directly, using what is right in the notes."
        ),
    )
