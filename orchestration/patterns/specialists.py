"""The specialists of a plan at work: in parallel and in sequence, and once more with what must be fixed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestration.errors import BudgetExceeded, OrchestraError
from orchestration.messages import ChatMessage, Sampling
from orchestration.patterns.base import StepResult
from orchestration.patterns.plan import Plan, PlanStep
from orchestration.patterns.prompt_texts import (
    FOUND_HEAD,
    IMPROVED_HEAD,
    SO_FAR_HEAD,
    TASK_AGAIN,
    TASK_AGAIN_BRIEFLY,
    TASK_BRIEFLY,
    TASK_ONLY,
)
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.specialist_step import run_specialist_step
from orchestration.query_analysis.analysis import analyse


@dataclass(frozen=True, slots=True)
class SpecialistResult:
    """What one specialist brought in the step called `name`: all its `text`, and as much of it as is
    `passed` on, by `model`. `error` is set when it failed. `revision` is the round that it is from, 0 for the
    first."""

    step: PlanStep
    name: str
    text: str = ""
    passed: str = ""
    model: str = ""
    error: OrchestraError | None = None
    revision: int = 0

    def __str__(self) -> str:
        return f"{self.name} ({self.step.task}):\n{self.passed}"


class Specialists:
    """Of one run. `question` is what all of them see. Each works on the most trusted model for its task."""

    def __init__(self, stage: RunContext, plan: Plan, question: str) -> None:
        self._stage = stage
        self._plan = plan
        self._question = question

    async def consult(self) -> list[SpecialistResult]:
        """All findings in the plan's order. Raises the first error when every specialist failed, unless the
        budget had a part in that."""
        findings: list[SpecialistResult] = []
        names = _names(self._plan)
        stages = self._plan.stages()
        for number, group in enumerate(stages, 1):
            who = ", ".join(step.specialist for step in group)
            await self._stage.progress(f"stage {number} of {len(stages)}: {who}")
            before = tuple(findings)
            async with asyncio.TaskGroup() as tasks:
                working = [
                    tasks.create_task(self._found(SpecialistResult(step, names[len(before) + at]), before))
                    for at, step in enumerate(group)
                ]
            findings.extend(task.result() for task in working)
        failed = [finding.error for finding in findings if finding.error is not None]
        if len(failed) == len(findings) and not any(isinstance(error, BudgetExceeded) for error in failed):
            raise failed[0]
        if failed:
            await self._stage.progress(f"goes on without {len(failed)} of {len(findings)} specialists")
        return findings

    async def revise(
        self, findings: Sequence[SpecialistResult], fixes: Mapping[str, Sequence[str]], number: int
    ) -> list[SpecialistResult]:
        """The findings with those revised that have to fix something, by the names of their steps. They work
        in the order of the plan, and see what is revised before them; one that fails leaves its finding as
        it is."""
        revised = list(findings)
        at = 0
        for group in self._plan.stages():
            ours = range(at, at + len(group))
            before = tuple(revised[:at])
            async with asyncio.TaskGroup() as tasks:
                working = {
                    index: tasks.create_task(
                        self._revised(findings[index], fixes[findings[index].name], before, number)
                    )
                    for index in ours
                    if findings[index].name in fixes
                }
            for index, task in working.items():
                revised[index] = task.result()
            at += len(group)
        return revised

    async def _found(self, finding: SpecialistResult, before: Sequence[SpecialistResult]) -> SpecialistResult:
        only = TASK_BRIEFLY if self._stage.is_small(self._model(finding.step)) else TASK_ONLY
        request = f"{self._before(finding, before)}\n{only}"
        try:
            answer = await self._work(finding, finding.name, request)
        except OrchestraError as error:
            return replace(finding, error=error)
        return await self._with(finding, finding.name, answer)

    async def _revised(
        self, finding: SpecialistResult, fixes: Sequence[str], before: Sequence[SpecialistResult], number: int
    ) -> SpecialistResult:
        must = "\n".join(f"- {fix}" for fix in fixes)
        again = TASK_AGAIN_BRIEFLY if self._stage.is_small(self._model(finding.step)) else TASK_AGAIN
        request = (
            f"{self._before(finding, before)}\n\n{SO_FAR_HEAD}\n{finding.passed}\n\n"
            f"{IMPROVED_HEAD}\n{must}\n\n{again}"
        )
        name = f"{finding.name}, revision {number}"
        try:
            answer = await self._work(finding, name, request)
        except OrchestraError as error:
            await self._stage.progress(f"{name}: the answer stays as it was: {error.message}")
            return finding
        return replace(await self._with(finding, name, answer), revision=number)

    def _before(self, finding: SpecialistResult, before: Sequence[SpecialistResult]) -> str:
        found = "\n\n".join(str(each) for each in before if each.text)
        earlier = f"\n\n{FOUND_HEAD}\n{found}" if found else ""
        return f"{self._question}{earlier}\n\nYour task: {finding.step.task}"

    async def _work(self, finding: SpecialistResult, name: str, request: str) -> StepResult:
        specialist, task = finding.step.specialist, finding.step.task
        return await run_specialist_step(
            self._stage,
            specialist,
            (ChatMessage(role="user", content=request),),
            name=name,
            sampling=Sampling(
                max_tokens=self._stage.limits.specialist_tokens, seed=self._stage.run.sampling.seed
            ),
            model=self._model(finding.step),
            query=task,
        )

    def _model(self, step: PlanStep) -> str | None:
        """The most trusted for its task."""
        return self._stage.trusted_model(step.specialist, kind=analyse(step.task).kind)

    async def _with(self, finding: SpecialistResult, name: str, answer: StepResult) -> SpecialistResult:
        most = self._stage.limits.passed_tokens
        passed = await self._stage.clipped(f"the answer of {name}", answer.text, most)
        return replace(finding, text=answer.text, passed=passed, model=answer.finish.model)


def _names(plan: Plan) -> list[str]:
    """Names of the plan's steps: a specialist's are `code`, `code 2`, …"""
    seen: Counter[str] = Counter()
    names = []
    for step in plan.steps:
        seen[step.specialist] += 1
        times = seen[step.specialist]
        names.append(step.specialist if times == 1 else f"{step.specialist} {times}")
    return names
