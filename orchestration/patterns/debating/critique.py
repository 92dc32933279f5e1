"""The form in which a debater says what is strong and weak in the answers, its own among them.

It is a step of its own, before the improved answer, so that the answer is free, or of the caller's form.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.messages import ChatMessage
from orchestration.patterns.consensus import is_garbage

CHARS = 120
"""Of each entry of the form."""

_RULES = (
    "Compare your answer to a question with the answers of others. Name what is strong and what is weak in "
    "theirs, and what is weak in yours. Reply in JSON."
)
_QUESTION = (
    "Question: How many days has a leap year?\n\nYour answer:\nA leap year has 365 days.\n\n"
    "Debater 2:\nA leap year has 366 days, because February has 29."
)
_FILLED = {
    "strengths": "Debater 2 gives the reason: February has 29 days.",
    "weaknesses": "It does not say how often a leap year comes.",
    "mine": "365 is the number of days of a common year.",
}


class InvalidCritique(ValueError):
    """What a debater wrote is no critique."""


class Critique(BaseModel):
    """`strengths` and `weaknesses` are those of the others' answers, `mine` what is weak in the own one."""

    model_config = ConfigDict(frozen=True)

    strengths: str = Field(min_length=1)
    weaknesses: str = Field(min_length=1)
    mine: str = Field(min_length=1)


def critique_schema() -> dict[str, Any]:
    """The JSON schema that guides it; bounded, so that it ends within about 110 tokens."""
    entry = {"type": "string", "minLength": 5, "maxLength": CHARS}
    return {
        "type": "object",
        "properties": dict.fromkeys(Critique.model_fields, entry),
        "required": list(Critique.model_fields),
        "additionalProperties": False,
    }


def critique_request(question: str, own: str, others: str) -> tuple[ChatMessage, ...]:
    """What a debater is asked; the beginning is the same each time, so that it is read once."""
    return (
        ChatMessage(role="user", content=f"{_RULES}\n\n{_QUESTION}"),
        ChatMessage(role="assistant", content=json.dumps(_FILLED)),
        ChatMessage(role="user", content=f"{question}\n\nYour answer:\n{own}\n\n{others}"),
    )


def parse_critique(text: str) -> Critique:
    """Raises `InvalidCritique` for what is not the form, or says nothing in one of its entries."""
    try:
        critique = Critique.model_validate_json(text)
    except ValidationError as error:
        raise InvalidCritique(error.errors(include_url=False)[0]["msg"]) from error
    for name, said in critique:
        if is_garbage(said):
            raise InvalidCritique(f"its {name} say nothing")
    return critique
