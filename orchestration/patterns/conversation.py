"""A caller's conversation, as a team of agents needs it: one question and what led to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.errors import InvalidRequest
from orchestration.messages import ChatMessage
from orchestration.patterns.base import Limits
from orchestration.patterns.clipping import clip, clip_end


@dataclass(frozen=True, slots=True)
class Conversation:
    """`question` is the last thing the user said, `history` what was said before it, `instructions`
    the caller's system messages; '' where there is none. All are clipped."""

    question: str
    history: str
    instructions: str

    @classmethod
    def of(cls, messages: Sequence[ChatMessage], limits: Limits) -> Conversation:
        """Raises `InvalidRequest` when nobody asks anything."""
        asked = last_question(messages)
        before = [message for message in messages[:asked] if message.role != "system"]
        history = "\n".join(f"{message.role}: {message.content.strip()}" for message in before)
        system = "\n".join(message.content.strip() for message in messages if message.role == "system")
        return cls(
            question=clip(messages[asked].content, limits.question_tokens),
            history=clip_end(history, limits.history_tokens) if limits.history_tokens else "",
            instructions=clip(system, limits.history_tokens) if limits.history_tokens else "",
        )

    def __str__(self) -> str:
        earlier = f"Earlier in the conversation:\n{self.history}\n\n" if self.history else ""
        return f"{earlier}Question: {self.question}"

    def system(self) -> tuple[ChatMessage, ...]:
        """The caller's own instructions, for whoever writes the answer."""
        return (ChatMessage(role="system", content=self.instructions),) if self.instructions else ()


def last_question(messages: Sequence[ChatMessage]) -> int:
    """The index of the user's last message. Raises `InvalidRequest` when there is none."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "user" and messages[index].content.strip():
            return index
    raise InvalidRequest("messages hold no user message with text: nothing is asked", param="messages")
