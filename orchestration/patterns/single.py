"""`orchestra/single`: the coordinator answers alone, in one generation."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from orchestration.messages import Run, Sampling, TextDelta
from orchestration.patterns.base import StepResult
from orchestration.patterns.conversation import last_question_index
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.limits import StepLimits
from orchestration.patterns.run_context import COORDINATOR, RunContext


@pattern("single")
async def single(
    run: Run, context: RunContext, settings: PatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """The conversation goes to the model whole; a context that is too small for it is an error."""
    last_question_index(run.messages)
    sampling = final_sampling(run, context.limits)
    async with aclosing(
        context.stream(COORDINATOR, run.messages, name="answer", sampling=sampling, guide=run.guide)
    ) as items:
        async for item in items:
            yield item


def final_sampling(run: Run, limits: StepLimits) -> Sampling:
    """What the caller said, for the step whose text is the answer: the context bounds a small model."""
    return run.sampling
