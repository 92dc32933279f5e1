"""What a question asks for, and what a good answer to it is judged by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from orchestration.messages import ChatMessage
from orchestration.patterns.prompt_texts import ANALYSE, TEA_ASKED, TEA_CRITERIA, TEA_QUESTION

CRITERIA = 3
ASKED_CHARS = 120
CRITERION_CHARS = 48

_RULES = f"{ANALYSE} {CRITERIA} criteria."
_QUESTION = f"Question: {TEA_QUESTION}"
_ANALYSIS = {"asked": TEA_ASKED, "criteria": TEA_CRITERIA}


class InvalidAnalysis(ValueError):
    """What the coordinator wrote is no analysis."""


class _AnalysisForm(BaseModel):
    model_config = ConfigDict(frozen=True)

    asked: str = Field(min_length=1)
    criteria: tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=3)], ...] = Field(
        min_length=1
    )


@dataclass(frozen=True, slots=True)
class TaskAnalysis:
    """`asked` is '' where nobody analysed the question; the criteria are those of any answer then."""

    asked: str = ""
    criteria: tuple[str, ...] = ("correct", "complete", "clear")

    @property
    def notes(self) -> tuple[str, ...]:
        """What an answer may not consist of."""
        return ("A good answer", "; ".join(self.criteria), *self.criteria)

    def __str__(self) -> str:
        """What is added to the question for all who work on it; '' where nobody analysed it."""
        return f"\nA good answer: {'; '.join(self.criteria)}." if self.asked else ""


def analysis_schema() -> dict[str, Any]:
    """The JSON schema that guides the analysis; bounded, so that it ends within about 90 tokens."""
    return {
        "type": "object",
        "properties": {
            "asked": {"type": "string", "minLength": 5, "maxLength": ASKED_CHARS},
            "criteria": {
                "type": "array",
                "minItems": 2,
                "maxItems": CRITERIA,
                "items": {"type": "string", "minLength": 5, "maxLength": CRITERION_CHARS},
            },
        },
        "required": ["asked", "criteria"],
        "additionalProperties": False,
    }


def analysis_request(question: str) -> tuple[ChatMessage, ...]:
    """What the coordinator is asked; all but the end is the same each time, so that it is read once."""
    return (
        ChatMessage(role="user", content=f"{_RULES}\n\n{_QUESTION}"),
        ChatMessage(role="assistant", content=json.dumps(_ANALYSIS)),
        ChatMessage(role="user", content=question),
    )


def parse_analysis(text: str) -> TaskAnalysis:
    """Each criterion once, without the mark at its end. Raises `InvalidAnalysis`."""
    try:
        said = _AnalysisForm.model_validate_json(text)
    except ValidationError as error:
        raise InvalidAnalysis(error.errors(include_url=False)[0]["msg"]) from error
    named = (criterion[:CRITERION_CHARS].rstrip(" .,;:") for criterion in said.criteria)
    criteria = tuple({name.casefold(): name for name in named if name}.values())[:CRITERIA]
    if not criteria:
        raise InvalidAnalysis("it names no criterion")
    return TaskAnalysis(said.asked.strip()[:ASKED_CHARS], criteria)
