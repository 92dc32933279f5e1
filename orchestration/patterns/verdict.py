"""The critic's verdict on what the specialists found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.messages import ChatMessage
from orchestration.patterns.answer_check import CallerText, is_of_an_example
from orchestration.patterns.prompt_texts import (
    REVIEW,
    TEA_CRITERIA,
    TEA_FINDINGS,
    TEA_FIX,
    TEA_QUESTION,
    TEA_TASKS,
)

MAX_FIXES = 3
FIX_CHARS = 90

_FOUND = (
    f"Question: {TEA_QUESTION}\n\nresearch ({TEA_TASKS[0]}):\n{TEA_FINDINGS[0]}\n\n"
    f"reasoning ({TEA_TASKS[1]}):\n{TEA_FINDINGS[1]}"
)
_VERDICT = {
    "must_fix": [{"who": "reasoning", "what": TEA_FIX}],
    "scores": {TEA_CRITERIA[0]: 8, TEA_CRITERIA[1]: 2},
    "verdict": "fail",
}


class InvalidVerdict(ValueError):
    """What the critic wrote is no verdict."""


class Fix(BaseModel):
    """What one step has to do better."""

    model_config = ConfigDict(frozen=True)

    who: str
    what: str = Field(min_length=1)


class CriticVerdict(BaseModel):
    """Scores from 1 (useless) to 10 (nothing to add) by criterion, what must be fixed, and the critic's own
    word on whether that passes."""

    model_config = ConfigDict(frozen=True)

    scores: dict[str, Annotated[int, Field(ge=1, le=10)]] = Field(min_length=1)
    must_fix: tuple[Fix, ...] = ()
    verdict: Literal["pass", "fail"]

    @property
    def score(self) -> float:
        """The mean over the criteria."""
        return round(fmean(self.scores.values()), 1)

    def passes(self, pass_at: float) -> bool:
        """Both the critic's word and the scores have to be good enough."""
        return self.verdict == "pass" and self.score >= pass_at

    def __str__(self) -> str:
        marks = ", ".join(f"{name} {score}" for name, score in self.scores.items())
        fixes = "; ".join(f"{fix.who}: {fix.what}" for fix in self.must_fix) or "nothing"
        return f"{self.verdict}, {self.score:g} of 10 ({marks}); to fix: {fixes}"


def verdict_schema(criteria: Sequence[str], steps: Sequence[str]) -> dict[str, Any]:
    """The JSON schema that guides the verdict on `steps`; bounded: about 180 tokens at most."""
    fix = {
        "type": "object",
        "properties": {
            "who": {"type": "string", "enum": list(steps)},
            "what": {"type": "string", "minLength": 5, "maxLength": FIX_CHARS},
        },
        "required": ["who", "what"],
        "additionalProperties": False,
    }
    scores = {
        "type": "object",
        "properties": {name: {"type": "integer", "enum": list(range(1, 11))} for name in criteria},
        "required": list(criteria),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "must_fix": {"type": "array", "maxItems": MAX_FIXES, "items": fix},
            "scores": scores,
            "verdict": {"type": "string", "enum": ["pass", "fail"]},
        },
        "required": ["must_fix", "scores", "verdict"],
        "additionalProperties": False,
    }


def verdict_request(question: str, found: str, criteria: Sequence[str]) -> tuple[ChatMessage, ...]:
    """What the critic is asked; the beginning is the same each time, so that it is read once."""
    return (
        ChatMessage(role="user", content=f"{REVIEW}\n\n{_FOUND}"),
        ChatMessage(role="assistant", content=json.dumps(_VERDICT)),
        ChatMessage(role="user", content=f"{question}\n\n{found}\n\nCriteria: {'; '.join(criteria)}"),
    )


def parse_verdict(text: str, steps: Sequence[str], caller: CallerText | None = None) -> CriticVerdict:
    """The verdict, without what is to be fixed by others than `steps`, or twice, or in the example that the
    critic is shown. Raises `InvalidVerdict`."""
    try:
        verdict = CriticVerdict.model_validate_json(text)
    except ValidationError as error:
        raise InvalidVerdict(error.errors(include_url=False)[0]["msg"]) from error
    fixes = tuple(dict.fromkeys(fix for fix in verdict.must_fix if fix.who in steps))
    if caller is not None:
        fixes = tuple(fix for fix in fixes if not is_of_an_example(fix.what, caller))
    return verdict.model_copy(update={"must_fix": fixes})
