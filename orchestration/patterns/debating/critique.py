"""The guided form in which a debater criticises the answers, its own included.

The critique is a step before the improved answer, so that the answer itself is free, or in the caller's form.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.messages import ChatMessage
from orchestration.patterns.caller_text import CallerText, is_of_an_example
from orchestration.patterns.consensus import is_garbage
from orchestration.patterns.limits import CRITIQUE_CHARS
from orchestration.patterns.prompt_texts import COMPARE, LEAP_ANSWERS, LEAP_CRITIQUE, LEAP_QUESTION
from orchestration.validation import first_problem

_QUESTION = f"Question: {LEAP_QUESTION}\n\nYour answer:\n{LEAP_ANSWERS[0]}\n\nDebater 2:\n{LEAP_ANSWERS[1]}"


class InvalidCritique(ValueError):
    """The debater's text is not a critique."""


class Critique(BaseModel):
    """`strengths` and `weaknesses` are those of the others' answers, `mine` is the weakness of the own
    answer."""

    model_config = ConfigDict(frozen=True)

    strengths: str = Field(min_length=1)
    weaknesses: str = Field(min_length=1)
    mine: str = Field(min_length=1)


def critique_schema(chars: int = CRITIQUE_CHARS) -> dict[str, Any]:
    """The JSON schema that guides the critique; bounded: about 110 tokens with the default `chars`."""
    entry = {"type": "string", "minLength": 5, "maxLength": chars}
    return {
        "type": "object",
        "properties": dict.fromkeys(Critique.model_fields, entry),
        "required": list(Critique.model_fields),
        "additionalProperties": False,
    }


def critique_request(question: str, own: str, others: str) -> tuple[ChatMessage, ...]:
    """The debater's prompt; its beginning is the same in every run, so that its prefix is computed once."""
    return (
        ChatMessage(role="user", content=f"{COMPARE}\n\n{_QUESTION}"),
        ChatMessage(role="assistant", content=json.dumps(LEAP_CRITIQUE)),
        ChatMessage(role="user", content=f"{question}\n\nYour answer:\n{own}\n\n{others}"),
    )


def parse_critique(text: str, caller: CallerText | None = None) -> Critique:
    """The critique in `text`. Raises `InvalidCritique` for a text in another form, an entry without content,
    and one copied from the example."""
    try:
        critique = Critique.model_validate_json(text)
    except ValidationError as error:
        raise InvalidCritique(first_problem(error).message) from error
    for name, entry in critique:
        if is_garbage(entry):
            raise InvalidCritique(f"its {name} say nothing")
        if caller is not None and is_of_an_example(entry, caller):
            raise InvalidCritique(f"its {name} are those of the example")
    return critique
