"""`orchestra/code` and `orchestra/reasoning`: one specialist answers, and its answer is checked.

The text comes when it has been checked, all at once: what was said cannot be taken back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from orchestration.messages import Run, TextDelta
from orchestration.patterns.answer_repair import AnswerRepair, checked_stream
from orchestration.patterns.base import StepResult
from orchestration.patterns.caller_text import CallerText
from orchestration.patterns.conversation import last_question_index
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.single import final_sampling
from orchestration.patterns.specialist_step import gather_sources
from orchestration.patterns.step_repair import CODE, REASONING, check_and_repair


@pattern("code")
async def code(
    run: Run, context: RunContext, settings: PatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The code agent answers; its Python is parsed, and run with the request's examples where there is a
    sandbox. What is wrong goes back to it once."""
    async with aclosing(_checked(run, context, CODE)) as items:
        async for item in items:
            yield item


@pattern("reasoning")
async def reasoning(
    run: Run, context: RunContext, settings: PatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The reasoning agent answers; a calculator checks the sums it writes and corrects wrong results."""
    async with aclosing(_checked(run, context, REASONING)) as items:
        async for item in items:
            yield item


async def _checked(run: Run, context: RunContext, agent: str) -> AsyncGenerator[TextDelta | StepResult, None]:
    last_question_index(run.messages)
    material = await gather_sources(context, agent, run.messages, name="answer")
    messages, sampling = material.before(run.messages), final_sampling(run, context.limits)
    answer: StepResult | None = None
    repair = AnswerRepair(
        asked=messages[-1].content,
        caller=CallerText(run.messages, also=[source.text for source in material.sources]),
        agent=agent,
        messages=messages,
        name="answer again",
        sampling=sampling,
        guide=run.guide,
        whole=True,
    )
    parts = context.stream(agent, messages, name="answer", sampling=sampling, guide=run.guide)
    async with aclosing(checked_stream(context, parts, repair)) as items:
        async for item in items:
            if isinstance(item, StepResult):
                answer = item
    assert answer is not None
    if run.guide is None:
        answer = await check_and_repair(context, agent, messages, answer, name="answer", sampling=sampling)
    async with aclosing(context.say(answer)) as items:
        async for item in items:
            yield item
