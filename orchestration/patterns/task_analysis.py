"""The analysis of a question: what it asks for, and the criteria of a good answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from orchestration.messages import ChatMessage
from orchestration.patterns.limits import ANALYSIS_CHARS
from orchestration.patterns.prompt_texts import ANALYSE, TEA_CRITERIA, TEA_INTERPRETATION, TEA_QUESTION
from orchestration.validation import first_problem

MAX_CRITERIA = 3
CRITERION_CHARS = 48

_RULES = f"{ANALYSE} {MAX_CRITERIA} criteria."
_QUESTION = f"Question: {TEA_QUESTION}"
_ANALYSIS = {"asked": TEA_INTERPRETATION, "criteria": TEA_CRITERIA}


class InvalidAnalysis(ValueError):
    """The coordinator's text is not an analysis."""


class _AnalysisForm(BaseModel):
    model_config = ConfigDict(frozen=True)

    asked: str = Field(min_length=1)
    criteria: tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=3)], ...] = Field(
        min_length=1
    )


@dataclass(frozen=True, slots=True)
class TaskAnalysis:
    """`goal` says what the question asks for; '' where it was not analysed. The criteria are those of any
    answer then."""

    goal: str = ""
    criteria: tuple[str, ...] = ("correct", "complete", "clear")

    @property
    def notes(self) -> tuple[str, ...]:
        """Texts that must not be the answer."""
        return ("A good answer", "; ".join(self.criteria), *self.criteria)

    def __str__(self) -> str:
        """What specialists and critic see below the question; '' where it was not analysed."""
        return f"\nA good answer: {'; '.join(self.criteria)}." if self.goal else ""


def analysis_schema(chars: int = ANALYSIS_CHARS) -> dict[str, Any]:
    """The JSON schema that guides the analysis; bounded: about 90 tokens with the default `chars`."""
    return {
        "type": "object",
        "properties": {
            "asked": {"type": "string", "minLength": 5, "maxLength": chars},
            "criteria": {
                "type": "array",
                "minItems": 2,
                "maxItems": MAX_CRITERIA,
                "items": {"type": "string", "minLength": 5, "maxLength": CRITERION_CHARS},
            },
        },
        "required": ["asked", "criteria"],
        "additionalProperties": False,
    }


def analysis_request(question: str) -> tuple[ChatMessage, ...]:
    """The coordinator's prompt; its beginning is the same in every run, so that its prefix is computed
    once."""
    return (
        ChatMessage(role="user", content=f"{_RULES}\n\n{_QUESTION}"),
        ChatMessage(role="assistant", content=json.dumps(_ANALYSIS)),
        ChatMessage(role="user", content=question),
    )


def parse_analysis(text: str) -> TaskAnalysis:
    """The analysis in `text`, each criterion once and without its final mark. Raises `InvalidAnalysis`."""
    try:
        form = _AnalysisForm.model_validate_json(text)
    except ValidationError as error:
        raise InvalidAnalysis(first_problem(error).message) from error
    named = (criterion[:CRITERION_CHARS].rstrip(" .,;:") for criterion in form.criteria)
    criteria = tuple({name.casefold(): name for name in named if name}.values())[:MAX_CRITERIA]
    if not criteria:
        raise InvalidAnalysis("it names no criterion")
    return TaskAnalysis(form.asked.strip(), criteria)
