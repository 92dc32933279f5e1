"""A caller's conversation as a team of agents needs it: one question, and the history that led to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.errors import InvalidRequest
from orchestration.messages import ChatMessage
from orchestration.patterns.clipping import clip, estimate_tokens, fair_shares
from orchestration.patterns.limits import StepLimits
from orchestration.patterns.prompt_texts import EARLIER_HEAD
from orchestration.patterns.run_context import RunContext

_HEADS = (2 / 3, 1 / 3, 2 / 3)
"""The share of the beginning of each clipped text: the latest words count most, and the first set the
scene."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """`question` is the user's last message, `history` the messages before it, `instructions` the caller's
    system messages; '' where there are none. `cuts` are the clipped parts, each with the tokens that it has
    and that are left."""

    question: str
    history: str
    instructions: str
    cuts: tuple[tuple[str, float, int], ...] = ()

    @classmethod
    def of(cls, messages: Sequence[ChatMessage], limits: StepLimits) -> Conversation:
        """Raises `InvalidRequest` when no message asks anything."""
        last = last_question_index(messages)
        before = [message for message in messages[:last] if message.role != "system"]
        texts = {
            "the question": messages[last].content,
            "what was said before the question": "\n".join(
                f"{message.role}: {message.content.strip()}" for message in before
            ),
            "the system message": "\n".join(
                message.content.strip() for message in messages if message.role == "system"
            ),
        }
        bounds = (limits.question_tokens, limits.history_tokens, limits.history_tokens)
        needs = [estimate_tokens(text.strip()) for text in texts.values()]
        bounded = [
            need if bound is None else min(need, bound) for need, bound in zip(needs, bounds, strict=True)
        ]
        given = [
            share if bound is None else min(share, bound)
            for share, bound in zip(fair_shares(bounded, limits.conversation_tokens), bounds, strict=True)
        ]
        clipped = [
            clip(text, share, head=head) if share else ""
            for text, share, head in zip(texts.values(), given, _HEADS, strict=True)
        ]
        cuts = tuple(
            (what, need, share) for what, need, share in zip(texts, needs, given, strict=True) if need > share
        )
        question, history, instructions = clipped
        return cls(question, history, instructions, cuts)

    @classmethod
    async def on(cls, context: RunContext) -> Conversation:
        """The conversation of a run; the caller is warned of what is clipped."""
        conversation = cls.of(context.run.messages, context.limits)
        await conversation.warn_of_cuts(context)
        return conversation

    async def warn_of_cuts(self, context: RunContext) -> None:
        """Warn of what is clipped, once in a run."""
        for what, need, share in self.cuts:
            await context.warn_cut(what, need, share)

    def __str__(self) -> str:
        earlier = f"{EARLIER_HEAD}\n{self.history}\n\n" if self.history else ""
        return f"{earlier}Question: {self.question}"

    def system(self) -> tuple[ChatMessage, ...]:
        """The caller's instructions, for the step that writes the answer."""
        return (ChatMessage(role="system", content=self.instructions),) if self.instructions else ()


def last_question_index(messages: Sequence[ChatMessage]) -> int:
    """The index of the user's last message. Raises `InvalidRequest` when there is none."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "user" and messages[index].content.strip():
            return index
    raise InvalidRequest("messages hold no user message with text: nothing is asked", param="messages")
