"""The critic's verdict on what the specialists found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.messages import ChatMessage
from orchestration.patterns.caller_text import CallerText, is_of_an_example
from orchestration.patterns.limits import FIX_CHARS
from orchestration.patterns.prompt_texts import (
    REVIEW,
    TEA_CRITERIA,
    TEA_FINDINGS,
    TEA_FIX,
    TEA_QUESTION,
    TEA_TASKS,
)
from orchestration.validation import first_problem

MAX_FIXES = 3

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
    """The critic's text is not a verdict."""


class Fix(BaseModel):
    """What a specialist must do better. `who` is the label of its task."""

    model_config = ConfigDict(frozen=True)

    who: str
    what: str = Field(min_length=1)


class CriticVerdict(BaseModel):
    """Scores from 1 (useless) to 10 (nothing to add) by criterion, what must be fixed, and whether the critic
    lets the work pass."""

    model_config = ConfigDict(frozen=True)

    scores: dict[str, Annotated[int, Field(ge=1, le=10)]] = Field(min_length=1)
    must_fix: tuple[Fix, ...] = ()
    verdict: Literal["pass", "fail"]

    @property
    def score(self) -> float:
        """The mean over the criteria."""
        return round(fmean(self.scores.values()), 1)

    def passes(self, pass_at: float) -> bool:
        """Whether the critic lets it pass and the mean score is at least `pass_at`."""
        return self.verdict == "pass" and self.score >= pass_at

    def fixes(self) -> dict[str, list[str]]:
        """What must be fixed, by the label of the task."""
        fixes: dict[str, list[str]] = {}
        for fix in self.must_fix:
            fixes.setdefault(fix.who, []).append(fix.what)
        return fixes

    def __str__(self) -> str:
        marks = ", ".join(f"{name} {score}" for name, score in self.scores.items())
        fixes = "; ".join(f"{fix.who}: {fix.what}" for fix in self.must_fix) or "nothing"
        return f"{self.verdict}, {self.score:g} of 10 ({marks}); to fix: {fixes}"


def verdict_schema(
    criteria: Sequence[str], labels: Sequence[str], fix_chars: int = FIX_CHARS
) -> dict[str, Any]:
    """The JSON schema that guides the verdict on the tasks with these labels. It is bounded: at most about
    180 tokens with the default `fix_chars`."""
    fix = {
        "type": "object",
        "properties": {
            "who": {"type": "string", "enum": list(labels)},
            "what": {"type": "string", "minLength": 5, "maxLength": fix_chars},
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
    """The critic's prompt; its beginning is the same in every run, so that its prefix is computed once."""
    return (
        ChatMessage(role="user", content=f"{REVIEW}\n\n{_FOUND}"),
        ChatMessage(role="assistant", content=json.dumps(_VERDICT)),
        ChatMessage(role="user", content=f"{question}\n\n{found}\n\nCriteria: {'; '.join(criteria)}"),
    )


def parse_verdict(text: str, labels: Sequence[str], caller: CallerText | None = None) -> CriticVerdict:
    """The verdict, without fixes for unknown labels, repeated ones, and those copied from the example in the
    prompt. Raises `InvalidVerdict`."""
    try:
        verdict = CriticVerdict.model_validate_json(text)
    except ValidationError as error:
        raise InvalidVerdict(first_problem(error).message) from error
    fixes = tuple(dict.fromkeys(fix for fix in verdict.must_fix if fix.who in labels))
    if caller is not None:
        fixes = tuple(fix for fix in fixes if not is_of_an_example(fix.what, caller))
    return verdict.model_copy(update={"must_fix": fixes})
