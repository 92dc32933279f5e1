"""The critic's review, and the rounds of revision that it asks for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from orchestration.errors import OrchestraError
from orchestration.messages import GuidedDecoding, Sampling
from orchestration.patterns.base import StepOptions
from orchestration.patterns.caller_text import CallerText
from orchestration.patterns.graph import TaskExecutor, TaskResult, results_text
from orchestration.patterns.run_context import CRITIC, RunContext
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
    """The review of one run. The critic is the most trusted model; where one of another family than the
    reviewed models is as good, that one. `own_family` in a report says that none was."""

    def __init__(
        self,
        context: RunContext,
        analysis: TaskAnalysis,
        question: str,
        *,
        pass_at: float,
        max_revisions: int,
    ) -> None:
        self.context = context
        self.analysis = analysis
        self.question = question
        self.verdict: CriticVerdict | None = None
        """The verdict on the results that the answer is written from; None where there is none."""
        self.verdicts: list[dict[str, Any]] = []
        """The reports of all verdicts."""
        self.revisions: list[dict[str, Any]] = []
        self._pass_at = pass_at
        self._max_revisions = max_revisions

    async def run(self, executor: TaskExecutor) -> None:
        """Review the results, and have specialists revise theirs until the verdict passes, at most
        `max_revisions` times. A revision that scores lower than the results before it is left out."""
        self.verdict = await self._judge(executor.results.values(), executor.tokens, 0)
        for number in range(1, self._max_revisions + 1):
            if self.verdict is None or self.verdict.passes(self._pass_at):
                break
            fixes = self.verdict.fixes()
            if not fixes:
                await self.context.progress("the verdict names nothing to fix")
                break
            await self.context.progress(f"revision {number}: {', '.join(fixes)}")
            revised = await executor.revise(fixes, number)
            done = [each.task.label for each in revised.values() if each.revision == number]
            if not done:
                break
            self.revisions += [{"revision": number, "step": name, "must_fix": fixes[name]} for name in done]
            verdict = await self._judge(revised.values(), executor.tokens, number)
            if verdict is not None and verdict.score < self.verdict.score:
                self.verdicts[-1]["accepted"] = False
                await self.context.progress(
                    f"revision {number} is left out: {verdict.score:g} after {self.verdict.score:g} of 10"
                )
                break
            executor.results, self.verdict = revised, verdict
        if self.verdict is not None and not self.verdict.passes(self._pass_at):
            await self.context.warn(f"the critic's verdict does not pass: {self.verdict}")

    async def _judge(
        self, results: Collection[TaskResult], tokens: int, revision: int
    ) -> CriticVerdict | None:
        """The verdict after a revision, 0 for none; None where the critic failed."""
        context, criteria = self.context, self.analysis.criteria
        found = [result for result in results if result.text]
        names = [result.task.label for result in found]
        models = list(dict.fromkeys(each.answer.finish.model for each in found if each.answer is not None))
        try:
            answer = await context.ask(
                CRITIC,
                verdict_request(self.question, results_text(found, tokens), criteria),
                name="review" if revision == 0 else f"review {revision + 1}",
                options=StepOptions(
                    sampling=Sampling(
                        max_tokens=context.limits.verdict_tokens, seed=context.run.sampling.seed
                    ),
                    guide=GuidedDecoding(
                        json_schema=verdict_schema(criteria, names, context.limits.fix_chars)
                    ),
                    model=context.trusted_model(CRITIC, judged=models),
                ),
            )
            verdict = parse_verdict(answer.text, names, CallerText(context.run.messages))
        except (OrchestraError, InvalidVerdict) as error:
            await context.progress(f"goes on without the critic's review: {error}")
            return None
        report = {
            "revision": revision,
            "model": answer.finish.model,
            "own_family": family_of(answer.finish.model) in {family_of(model) for model in models},
            "score": verdict.score,
            "scores": dict(verdict.scores),
            "must_fix": [fix.model_dump() for fix in verdict.must_fix],
            "verdict": verdict.verdict,
            "passes": verdict.passes(self._pass_at),
            "accepted": True,
        }
        self.verdicts.append(report)
        await context.event("verdict", **report)
        await context.progress(f"review: {verdict}")
        return verdict
