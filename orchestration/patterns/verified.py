"""`orchestra/code` and `orchestra/reasoning`: one specialist answers, and its answer is checked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from orchestration.messages import Run, TextDelta
from orchestration.patterns.base import StepResult
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.specialist_answer import answer_of
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
