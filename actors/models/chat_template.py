"""Renders a model's chat template so that only the template itself can insert control tokens.

The template is untrusted code and runs in a sandbox with a budget. In the messages every control token is
broken by a mark, a random character that occurs in no message. In the result only the template's own text
spells control tokens; then the marks are removed. The template joins and trims the real text, and text on
both sides of a message boundary is tokenised together, as in the reference implementations.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from actors.models.errors import UnsupportedModel
from actors.models.template_sandbox import BUDGET, Refusal, RenderBudget, TemplateSandbox
from orchestration.chat_roles import ChatRoles
from orchestration.errors import InvalidRequest
from orchestration.messages import ChatMessage

_PRIVATE_USE = (0xF0000, 0xFFFFD)
_PROBE = "instructions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A piece of a rendered prompt. `trusted`: a control token of the template; else ordinary text."""

    text: str
    trusted: bool


class ChatTemplate:
    """A compiled template. `control` are the spellings of the model's control tokens.

    Raises `UnsupportedModel` when the template cannot be compiled.
    """

    def __init__(self, source: str, bos: str, eos: str, control: Collection[str]) -> None:
        try:
            self._template = TemplateSandbox().from_string(source)
        except TemplateError as error:
            raise UnsupportedModel(f"the model's chat template cannot be compiled: {error}") from error
        self._constants = {
            "bos_token": bos,
            "eos_token": eos,
            "tools": None,
            "documents": None,
        }
        spellings = sorted(filter(None, control), key=len, reverse=True)
        self._control = re.compile("(" + "|".join(map(re.escape, spellings)) + ")") if spellings else None
        self.roles = self._roles_taken()
        """The roles that the template accepts; `render` converts other conversations."""

    def render(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool = True) -> list[Segment]:
        """The prompt as segments, which are encoded one after another.

        Raises `InvalidRequest` when the template refuses the messages or exceeds its bounds.
        """
        return self._rendered(self.roles.fit(messages), add_generation_prompt=add_generation_prompt)

    def _rendered(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool) -> list[Segment]:
        texts = [text for message in messages for text in (message.content, message.name or "")]
        mark = _mark(texts)
        budget = RenderBudget(sum(map(len, texts)))
        variables = {
            **self._constants,
            "messages": [self._untrusted(message, mark) for message in messages],
            "add_generation_prompt": add_generation_prompt,
            BUDGET: budget,
        }
        try:
            text = self._text(variables, budget)
        except Refusal as error:
            raise InvalidRequest(f"the model's chat template refuses: {error}", param="messages") from error
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise InvalidRequest(
                f"the model's chat template cannot render these messages: {error}", param="messages"
            ) from error
        return list(self._segments(text, mark))

    def _roles_taken(self) -> ChatRoles:
        """Determine the roles by trying. A template that drops a system message accepts none."""
        question = ChatMessage(role="user", content="question")
        system_message, answer = (
            ChatMessage(role="system", content=_PROBE),
            ChatMessage(role="assistant", content="answer"),
        )
        system = self._takes((system_message, question), _PROBE) or not self._takes((question,))
        repeats = self._takes((question, question)) and self._takes((question, answer, answer, question))
        return ChatRoles(system=system, repeats=repeats or not self._takes((question, answer, question)))

    def check(self) -> None:
        """Raises `UnsupportedModel` if the template cannot even render a single question."""
        try:
            self.render([ChatMessage(role="user", content="question")])
        except InvalidRequest as error:
            raise UnsupportedModel(error.message) from error

    def _takes(self, messages: Sequence[ChatMessage], text: str = "") -> bool:
        """Whether it renders the messages, including `text`."""
        try:
            segments = self._rendered(messages, add_generation_prompt=True)
        except InvalidRequest:
            return False
        return text in "".join(segment.text for segment in segments)

    def _text(self, variables: dict[str, Any], budget: RenderBudget) -> str:
        pieces = []
        left = budget.chars
        for piece in self._template.generate(variables):
            left -= len(piece)
            if left < 0:
                raise budget.too_long
            pieces.append(piece)
        return "".join(pieces)

    def _untrusted(self, message: ChatMessage, mark: str) -> dict[str, str]:
        fields = {"role": message.role, "content": self._broken(message.content, mark)}
        if message.name is not None:
            fields["name"] = self._broken(message.name, mark)
        return fields

    def _broken(self, text: str, mark: str) -> str:
        """`text` with a mark after the first character of each control token, also of nested ones."""
        if self._control is None:
            return text
        return self._control.sub(lambda found: found[0][0] + mark + found[0][1:], text)

    def _segments(self, text: str, mark: str) -> Iterator[Segment]:
        pieces = self._control.split(text) if self._control else [text]
        for at, piece in enumerate(pieces):
            plain = piece.replace(mark, "")
            if plain:
                yield Segment(text=plain, trusted=at % 2 == 1)


def _mark(texts: list[str]) -> str:
    """A random character that is in none of `texts`; as it cannot be guessed, one or two draws suffice."""
    first, last = _PRIVATE_USE
    while True:
        mark = chr(first + secrets.randbelow(last - first))
        if not any(mark in text for text in texts):
            return mark
