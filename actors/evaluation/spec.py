"""What is evaluated, and under which conditions: results of one spec can be compared."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from actors.evaluation.dataset import Dataset, DatasetQuestion
from orchestration.errors import InvalidRequest
from orchestration.evaluation.forms import kind_of_vote
from orchestration.patterns.voting import MAX_VOTERS

BASELINE = "self-consistency"
"""The plain way to spend tokens: ask again, and count."""
VOTES = (BASELINE, "ensemble")
PATTERNS = ("single", BASELINE, "ensemble", "debate", "maestro", "decompose")


class Spec(BaseModel):
    """`budget` are the tokens that a pattern may read and write for one question. The model, the temperature
    and the longest answer are the cluster's to choose where they are None. `settings` are of patterns, by
    their names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    fingerprint: str
    questions: int
    budget: int = Field(ge=1)
    model: str | None = None
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int = 0
    settings: dict[str, dict[str, Any]] = {}

    @classmethod
    def of(cls, dataset: Dataset, **said: Any) -> Spec:
        return cls(
            dataset=dataset.name,
            fingerprint=dataset.fingerprint,
            questions=len(dataset.questions),
            **said,
        )

    def body(self, pattern: str, question: DatasetQuestion) -> dict[str, Any]:
        """Of `/v1/chat/completions`. The seed is the question's own and the same for every pattern; nothing
        that was answered before is given again."""
        said: dict[str, Any] = {
            "model": f"orchestra/{pattern}",
            "messages": [{"role": "user", "content": question.text}],
            "seed": zlib.crc32(f"{self.seed} {question.id}".encode()) >> 1,
            "cache": {"no_store": True},
            "stream_options": {"include_usage": True},
            "orchestra": {
                "budget": {"tokens": self.budget},
                "settings": _default_settings(pattern, question) | self.settings.get(pattern, {}),
            },
        }
        if self.model is not None:
            said["orchestra"]["model"] = self.model
        if self.temperature is not None:
            said["temperature"] = self.temperature
        if self.max_tokens is not None:
            said["max_tokens"] = self.max_tokens
        return said


def parsed_settings(said: Collection[str], patterns: Collection[str]) -> dict[str, dict[str, Any]]:
    """Of `PATTERN.FIELD=VALUE`, the value as JSON or plain text. Raises `InvalidRequest` for another form,
    and for a pattern that is none of `patterns`."""
    found: dict[str, dict[str, Any]] = {}
    for text in said:
        name, equals, value = text.partition("=")
        pattern, dot, field = name.partition(".")
        if not (equals and dot and pattern and field):
            raise InvalidRequest(f"--set takes PATTERN.FIELD=VALUE, not {text!r}")
        if pattern not in patterns:
            raise InvalidRequest(f"--set {text}: {pattern!r} is none of --patterns {','.join(patterns)}")
        found.setdefault(pattern, {})[field] = json_or_text(value)
    return found


def json_or_text(text: str) -> Any:
    """A value on the command line."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _default_settings(pattern: str, question: DatasetQuestion) -> dict[str, Any]:
    """What a vote is told: how the answers compare, which a user of it would say too. The baseline goes on to
    the end of its budget, or until nothing can change its outcome any more; one sample after another, since
    those at work at once each hold of the budget as much as they might need."""
    said: dict[str, Any] = {"kind": kind_of_vote(question.form)} if pattern in VOTES else {}
    if pattern == BASELINE:
        said |= {"samples": MAX_VOTERS, "confidence": 1.0, "max_parallel": 1}
    return said
