"""`orchestra/research`: the research agent answers from the knowledge base, with its sources."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from orchestration.messages import Finish, Run, Sampling, TextDelta
from orchestration.patterns.answer_repair import AnswerRepair, checked_stream
from orchestration.patterns.base import StepResult
from orchestration.patterns.caller_text import CallerText
from orchestration.patterns.conversation import last_question_index
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.single import final_sampling
from orchestration.patterns.specialist_step import (
    Grounding,
    GroundingCheck,
    check_grounding,
    cited,
    gather_sources,
)
from orchestration.query_analysis.analysis import analyse

RESEARCH = "research"
NOTHING_FOUND = (
    "No source was found for this question, so there is no answer from the documents. Add documents that "
    "have it (`orchestra knowledge add FILE`), ask in other words, or ask a model without documents "
    "(`orchestra/single`)."
)


@pattern("research")
async def research(
    run: Run, context: RunContext, settings: PatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The research agent answers from documents and says which, and what they do not support.

    Below the answer stand the sources it used and the claims that none of them supports. Without a source it
    says that there is none, and what can be done, instead of an invention. Small talk, and a text of a fixed
    form, which has no room for that, come with a note.
    """
    last_question_index(run.messages)
    material = await gather_sources(context, RESEARCH, run.messages, name="answer")
    if not material.sources:
        await context.warn("no source was found for this question")
        if run.guide is None and not _is_small_talk(run):
            async with aclosing(context.say(_nothing_found())) as items:
                async for item in items:
                    yield item
            return
    sampling = material.sampling(final_sampling(run, context.limits)) or Sampling()
    messages = material.before(run.messages)
    answer: StepResult | None = None
    repair = AnswerRepair(
        asked=messages[-1].content,
        caller=CallerText(run.messages, also=[source.text for source in material.sources]),
        agent=RESEARCH,
        messages=messages,
        name="answer again",
        sampling=sampling,
        guide=run.guide,
    )
    parts = context.stream(RESEARCH, messages, name="answer", sampling=sampling, guide=run.guide)
    async with aclosing(checked_stream(context, parts, repair)) as items:
        async for item in items:
            if isinstance(item, StepResult):
                answer = item
            else:
                yield item
    assert answer is not None
    if material.sources:
        check = await check_grounding(context, answer.text, material)
        if str(check):
            await context.warn(str(check))
        if run.guide is None:
            below = _below(answer.text, material, check)
            yield TextDelta(text=below, tokens=0)
            answer = replace(answer, text=answer.text + below)
    yield answer


def _is_small_talk(run: Run) -> bool:
    return analyse(run.messages[last_question_index(run.messages)].content).kind == "conversation"


def _nothing_found() -> StepResult:
    return StepResult(text=NOTHING_FOUND, finish=Finish(reason="stop"), seconds=0.0)


def _below(text: str, material: Grounding, check: GroundingCheck) -> str:
    """The sources that the answer cites or that support a claim of it, else all; and what has no support."""
    used = cited(text) | {material.sources[claim.source].n for claim in check.claims if claim.supported}
    listed = [source for source in material.sources if source.n in used] or material.sources
    lines = ["Sources:", *(f"[{source.n}] {source.label} ({source.document})" for source in listed)]
    if str(check):
        lines.append(f"({str(check)[0].upper()}{str(check)[1:]}.)")
    return "\n\n" + "\n".join(lines)
