"""Adapts conversations to models that accept no system message, or no two messages of one role in a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from orchestration.messages import ChatMessage

_OPENING = ChatMessage(role="user", content="Begin.")
"""Inserted before an assistant's message that comes first, if roles must alternate."""
_BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRoles:
    """What a model's template accepts: a `system` message first, and `repeats` of a role."""

    system: bool = True
    repeats: bool = True

    def fit(self, messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
        """The conversation in the form that the model accepts, with its whole text.

        Without `system`, instructions go before the text of the first user message. Without `repeats`,
        consecutive messages of one role are joined, and a later system message becomes the user's.
        """
        if self.system and self.repeats:
            return tuple(messages)
        count = next((at for at, each in enumerate(messages) if each.role != "system"), len(messages))
        instructions, turns = list(messages[:count]), [_of_user(each) for each in messages[count:]]
        if instructions and not self.system:
            instruction = _joined(_of_user(each) for each in instructions)
            turns = [*_before(instruction, turns)]
            instructions = []
        if not self.repeats:
            instructions = [_joined(instructions)] if instructions else []
            turns = [*_alternating(turns)]
        return (*instructions, *turns)

    def alternative(self, *, repeats: bool, messages: Sequence[ChatMessage]) -> ChatRoles | None:
        """The next form to try after the model refused `messages` in this form, because roles repeat
        (`repeats`) or because of a system message. None if no other form differs."""
        strictest = ChatRoles(system=False, repeats=False)
        tries = (replace(self, repeats=False) if repeats else replace(self, system=False), strictest)
        refused = self.fit(messages)
        return next((roles for roles in tries if roles.fit(messages) != refused), None)


def _of_user(message: ChatMessage) -> ChatMessage:
    return message.model_copy(update={"role": "user"}) if message.role == "system" else message


def _before(instruction: ChatMessage, turns: Sequence[ChatMessage]) -> Iterable[ChatMessage]:
    """The messages with `instruction` at the start of the first one, if that is the user's, else before it as
    the user's own."""
    if turns and turns[0].role == "user":
        return (_joined((instruction, turns[0])), *turns[1:])
    return (instruction, *turns)


def _alternating(turns: Iterable[ChatMessage]) -> Iterable[ChatMessage]:
    """Consecutive messages of one role joined, the user's first. Tool calls and their results stay
    separate."""
    run: list[ChatMessage] = []
    for number, turn in enumerate(turns):
        if not number and turn.role == "assistant":
            yield _OPENING
        if run and (turn.role != run[0].role or turn.role == "tool" or turn.tool_calls or run[-1].tool_calls):
            yield _joined(run)
            run = []
        run.append(turn)
    if run:
        yield _joined(run)


def _joined(turns: Iterable[ChatMessage]) -> ChatMessage:
    """One message with the role and the fields of the last."""
    turns = tuple(turns)
    if len(turns) == 1:
        return turns[0]
    text = _BETWEEN.join(turn.content for turn in turns if turn.content)
    return turns[-1].model_copy(update={"content": text})
