"""`orchestra/single`: the coordinator answers alone, in one generation."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from orchestration.messages import Run, TextDelta
from orchestration.patterns.base import StepOptions, StepResult
from orchestration.patterns.conversation import last_question_index
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.run_context import COORDINATOR, RunContext


@pattern("single")
async def single(
    run: Run, context: RunContext, settings: PatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The coordinator answers alone. The conversation goes to the model whole; one that exceeds its context
    is an error."""
    last_question_index(run.messages)
    sampling = run.sampling
    async with aclosing(
        context.stream(
            COORDINATOR, run.messages, name="answer", options=StepOptions(sampling=sampling, guide=run.guide)
        )
    ) as items:
        async for item in items:
            yield item
