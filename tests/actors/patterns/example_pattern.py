"""Several drafts at once, and one answer made of them: a pattern as a user writes it."""

import asyncio
from collections.abc import AsyncGenerator

from pydantic import Field

from orchestration.errors import OrchestraError
from orchestration.messages import ChatMessage, Run, TextDelta
from orchestration.patterns import PatternSettings, RunContext, StepResult, pattern


class DraftsSettings(PatternSettings):
    drafts: int = Field(default=3, ge=2, le=8)
    agent: str = "creative"


@pattern("drafts", settings=DraftsSettings)
async def drafts(
    run: Run, context: RunContext, settings: DraftsSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """Writes several drafts at once, and makes one answer of them."""

    async def draft(number: int) -> str:
        try:
            return (await context.ask(settings.agent, run.messages, name=f"draft {number}")).text
        except OrchestraError as error:  # the others go on
            await context.warn(f"draft {number} is missing: {error.message}")
            return ""

    async with asyncio.TaskGroup() as tasks:
        writing = [tasks.create_task(draft(number)) for number in range(1, settings.drafts + 1)]
    texts = [task.result() for task in writing if task.result()]
    context.report["drafts"] = texts
    request = "\n\n".join(["Make one answer of these drafts:", *texts])
    messages = (*run.messages, ChatMessage(role="user", content=request))
    async for part in context.stream("coordinator", messages, name="answer"):
        yield part
