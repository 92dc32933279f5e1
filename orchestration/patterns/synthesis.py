"""The last step of a team: one answer, streamed, out of what its members brought."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from orchestration.errors import BudgetSpent
from orchestration.messages import ChatMessage
from orchestration.patterns.base import Answer, Part
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.single import final_sampling
from orchestration.patterns.stage import COORDINATOR, Stage


async def synthesis(
    stage: Stage,
    talk: Conversation,
    notes: str,
    *,
    question: str,
    instead: Callable[[], tuple[str, Answer]],
    after: Sequence[str] | None = None,
) -> AsyncGenerator[Part | Answer, None]:
    """What the coordinator writes from the `notes`. Where the budget does not reach for it, what `instead`
    gives: what that is, for people, and an answer that is there already."""
    request = (
        f"{question}\n\nNotes from the team:\n{notes}\n\n"
        "Answer the question clearly and directly, using what is right in the notes."
    )
    messages = (*talk.system(), ChatMessage(role="user", content=request))
    sampling, guide = final_sampling(stage.run, stage.limits), stage.run.guide
    try:
        async with aclosing(
            stage.stream(COORDINATOR, messages, name="synthesis", sampling=sampling, guide=guide, after=after)
        ) as items:
            async for item in items:
                yield item
    except BudgetSpent as error:
        what, answer = instead()
        await stage.note(f"{what}: {error.message}")
        async with aclosing(stage.say(answer)) as items:
            async for item in items:
                yield item
