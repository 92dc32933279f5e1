"""The critic's review, and the rounds of revision that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestration.errors import OrchestraError
from orchestration.messages import Guide, Sampling
from orchestration.patterns.answer_check import CallerText
from orchestration.patterns.run_context import CRITIC, RunContext
from orchestration.patterns.specialists import SpecialistResult, Specialists
from orchestration.patterns.task_analysis import TaskAnalysis
from orchestration.patterns.verdict import (
    CriticVerdict,
    InvalidVerdict,
    parse_verdict,
    verdict_request,
    verdict_schema,
)
from orchestration.trust.families import family_of


class Review:
    """Of one run. The critic is the most trusted model, one of another family than those that it judges where
    such a one is as good: `own_family` of a verdict says that it is not. `verdict` is the one on what the
    answer is written from, None where there is none."""

    def __init__(
        self, context: RunContext, brief: TaskAnalysis, question: str, *, pass_at: float, revisions: int
    ) -> None:
        self.verdict: CriticVerdict | None = None
        self.verdicts: list[dict[str, Any]] = []
        """All of them, as they are reported."""
        self.revisions: list[dict[str, Any]] = []
        self._context = context
        self.brief = brief
        self.question = question
        self._pass_at = pass_at
        self._most = revisions

    async def hold(self, findings: list[SpecialistResult], team: Specialists) -> list[SpecialistResult]:
        """The findings, revised by those concerned until the verdict passes or so many rounds are over. A
        revision that the critic scores lower than what was there is left out."""
        self.verdict = await self._judge(findings, 0)
        for number in range(1, self._most + 1):
            if self.verdict is None or self.verdict.passes(self._pass_at):
                break
            fixes = self._fixes(self.verdict)
            if not fixes:
                await self._context.progress("the verdict names nothing to fix")
                break
            await self._context.progress(f"revision {number}: {', '.join(fixes)}")
            revised = await team.revise(findings, fixes, number)
            done = [finding.name for finding in revised if finding.revision == number]
            if not done:
                break
            self.revisions += [{"revision": number, "step": name, "must_fix": fixes[name]} for name in done]
            verdict = await self._judge(revised, number)
            if verdict is not None and verdict.score < self.verdict.score:
                self.verdicts[-1]["accepted"] = False
                await self._context.progress(
                    f"revision {number} is left out: {verdict.score:g} after {self.verdict.score:g} of 10"
                )
                break
            findings, self.verdict = revised, verdict
        if self.verdict is not None and not self.verdict.passes(self._pass_at):
            await self._context.warn(f"the critic's verdict does not pass: {self.verdict}")
        return findings

    @staticmethod
    def _fixes(verdict: CriticVerdict) -> dict[str, list[str]]:
        """What has to be fixed, by the name of the step."""
        found: dict[str, list[str]] = {}
        for fix in verdict.must_fix:
            found.setdefault(fix.who, []).append(fix.what)
        return found

    async def _judge(self, findings: Sequence[SpecialistResult], number: int) -> CriticVerdict | None:
        """The verdict after revision `number`, or None where the critic failed."""
        context, criteria = self._context, self.brief.criteria
        told = [finding for finding in findings if finding.text]
        names = [finding.name for finding in told]
        sampling = Sampling(max_tokens=context.limits.verdict_tokens, seed=context.run.sampling.seed)
        judged = list(dict.fromkeys(finding.model for finding in told))
        try:
            answer = await context.ask(
                CRITIC,
                verdict_request(self.question, "\n\n".join(str(finding) for finding in told), criteria),
                name="review" if number == 0 else f"review {number + 1}",
                sampling=sampling,
                guide=Guide(json_schema=verdict_schema(criteria, names)),
                model=context.trusted_model(CRITIC, judged=judged),
            )
            verdict = parse_verdict(answer.text, names, CallerText(context.run.messages))
        except (OrchestraError, InvalidVerdict) as error:
            await context.progress(f"goes on without the critic's review: {error}")
            return None
        passes = verdict.passes(self._pass_at)
        said = {
            "revision": number,
            "model": answer.finish.model,
            "own_family": family_of(answer.finish.model) in {family_of(model) for model in judged},
            "score": verdict.score,
            "scores": dict(verdict.scores),
            "must_fix": [fix.model_dump() for fix in verdict.must_fix],
            "verdict": verdict.verdict,
            "passes": passes,
            "accepted": True,
        }
        self.verdicts.append(said)
        await context.event("verdict", **said)
        await context.progress(f"review: {verdict}")
        return verdict
