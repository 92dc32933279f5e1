"""`orchestra/code`, `orchestra/reasoning` and `orchestra/research`: one specialist answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from orchestration.messages import Run, TextDelta
from orchestration.patterns.base import StepResult
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.specialist_answer import RESEARCH, answer_of
from orchestration.patterns.step_repair import CODE, REASONING


@pattern("code")
async def code(
    run: Run, context: RunContext, settings: PatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The code agent answers; its Python is parsed, and run with the request's examples where there is a
    sandbox. What is wrong goes back to it once."""
    async with aclosing(answer_of(context, CODE)) as items:
        async for item in items:
            yield item


@pattern("reasoning")
async def reasoning(
    run: Run, context: RunContext, settings: PatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The reasoning agent answers; a calculator checks the sums it writes and corrects wrong results."""
    async with aclosing(answer_of(context, REASONING)) as items:
        async for item in items:
            yield item


@pattern("research")
async def research(
    run: Run, context: RunContext, settings: PatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The research agent answers from documents and says which, and what they do not support.

    Below the answer stand the sources it used and the claims that none of them supports. Without a source it
    says that there is none, and what can be done, instead of an invention. Small talk, and a text of a fixed
    form, which has no room for that, come with a note.
    """
    async with aclosing(answer_of(context, RESEARCH)) as items:
        async for item in items:
            yield item
