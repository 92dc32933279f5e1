"""The critic's verdict on what the specialists found."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

ISSUES = 3
ISSUE_CHARS = 120


class InvalidVerdict(ValueError):
    """What the critic wrote is no verdict."""


class Verdict(BaseModel):
    """`score` from 1 (useless) to 10 (nothing to add), and what is wrong or missing."""

    model_config = ConfigDict(frozen=True)

    score: int = Field(ge=1, le=10)
    issues: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = "; ".join(self.issues) or "nothing to add"
        return f"{self.score}/10: {said}"


def verdict_schema() -> dict[str, Any]:
    """The JSON schema that guides the verdict; bounded, so that it ends."""
    return {
        "type": "object",
        "properties": {
            "score": {"type": "integer", "enum": list(range(1, 11))},
            "issues": {
                "type": "array",
                "maxItems": ISSUES,
                "items": {"type": "string", "minLength": 5, "maxLength": ISSUE_CHARS},
            },
        },
        "required": ["score", "issues"],
        "additionalProperties": False,
    }


def parse_verdict(text: str) -> Verdict:
    """Raises `InvalidVerdict`."""
    try:
        return Verdict.model_validate_json(text)
    except ValidationError as error:
        raise InvalidVerdict(error.errors(include_url=False)[0]["msg"]) from error
