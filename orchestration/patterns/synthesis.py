"""The last step of a team: one answer, streamed, from the results of its members."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from orchestration.errors import BudgetExceeded
from orchestration.messages import ChatMessage, TextDelta
from orchestration.patterns.answer_check import problem_of
from orchestration.patterns.answer_repair import AnswerRepair, checked_stream
from orchestration.patterns.base import StepOptions, StepResult
from orchestration.patterns.caller_text import CallerText
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.prompt_texts import NOTES_HEAD, WRITE_FROM_NOTES
from orchestration.patterns.run_context import COORDINATOR, RunContext


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisInput:
    """The results of a team. The coordinator reads `notes` after `question`; `answers` are the members' own,
    the best first, each with a description for people; `inside` are texts for the team alone."""

    question: str
    notes: str
    answers: Sequence[tuple[str, StepResult]]
    inside: Sequence[str] = ()


async def synthesis(
    context: RunContext,
    conversation: Conversation,
    found: SynthesisInput,
    *,
    after: Sequence[str] | None = None,
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """Stream what the coordinator writes from the notes, on the most trusted model. An unusable text is
    written once more, from the best answer alone; where the budget is too small for that, the best answer
    itself is taken."""
    sampling, guide = context.run.sampling, context.run.guide
    caller = CallerText(context.run.messages)
    sound = [each for each in found.answers if not problem_of(each[1].text, caller, found.inside)]
    caller = CallerText(context.run.messages, also=[answer.text for _, answer in sound])
    messages = _messages(conversation, found.question, found.notes)
    model = context.trusted_model(COORDINATOR)
    repair = AnswerRepair(
        question=messages[-1].content,
        caller=caller,
        agent=COORDINATOR,
        messages=_messages(
            conversation, str(conversation), "\n\n".join(answer.text.strip() for _, answer in sound[:1])
        ),
        name="synthesis again",
        sampling=sampling,
        guide=guide,
        model=model,
        others=sound,
        inside=found.inside,
    )
    parts = context.stream(
        COORDINATOR,
        messages,
        name="synthesis",
        options=StepOptions(sampling=sampling, guide=guide, model=model, after=after),
    )
    try:
        async with aclosing(checked_stream(context, parts, repair)) as items:
            async for item in items:
                yield item
    except BudgetExceeded as error:
        what, answer = (sound or found.answers)[0]
        await context.warn(f"{what}: {error.message}")
        async with aclosing(context.say(answer)) as items:
            async for item in items:
                yield item


def _messages(conversation: Conversation, question: str, notes: str) -> tuple[ChatMessage, ...]:
    request = f"{question}\n\n{NOTES_HEAD}\n{notes}\n\n{WRITE_FROM_NOTES}"
    return (*conversation.system(), ChatMessage(role="user", content=request))
