"""The specification of an evaluation; results of the same specification can be compared."""

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
"""The simplest way to spend tokens: ask repeatedly, and count the answers."""
VOTES = (BASELINE, "ensemble")
PATTERNS = ("single", BASELINE, "ensemble", "debate", "maestro", "decompose")


class Spec(BaseModel):
    """The evaluation. The cluster chooses the model, the temperature and `max_tokens` if they are None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    fingerprint: str
    questions: int
    budget: int = Field(ge=1)
    """The tokens that a pattern may read and write for one question."""
    model: str | None = None
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int = 0
    settings: dict[str, dict[str, Any]] = {}
    """Settings of patterns, by their names."""

    @classmethod
    def of(cls, dataset: Dataset, **fields: Any) -> Spec:
        return cls(
            dataset=dataset.name,
            fingerprint=dataset.fingerprint,
            questions=len(dataset.questions),
            **fields,
        )

    def body(self, pattern: str, question: DatasetQuestion) -> dict[str, Any]:
        """Return the body for `/v1/chat/completions`. The seed depends on the question alone, and is the same
        for every pattern; cached responses are not used."""
        body: dict[str, Any] = {
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
            body["orchestra"]["model"] = self.model
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        return body


def parse_settings(values: Collection[str], patterns: Collection[str]) -> dict[str, dict[str, Any]]:
    """Parse `PATTERN.FIELD=VALUE` options; a value is JSON or plain text. Raises `InvalidRequest` for another
    form, and for a pattern that is not in `patterns`."""
    found: dict[str, dict[str, Any]] = {}
    for text in values:
        name, equals, value = text.partition("=")
        pattern, dot, field = name.partition(".")
        if not (equals and dot and pattern and field):
            raise InvalidRequest(f"--set takes PATTERN.FIELD=VALUE, not {text!r}")
        if pattern not in patterns:
            raise InvalidRequest(f"--set {text}: {pattern!r} is not in --patterns {','.join(patterns)}")
        found.setdefault(pattern, {})[field] = json_or_text(value)
    return found


def json_or_text(text: str) -> Any:
    """Parse a value from the command line."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _default_settings(pattern: str, question: DatasetQuestion) -> dict[str, Any]:
    """Return the default settings of a pattern. A vote gets the kind of answer, which a user would set too.
    The baseline goes on to the end of its budget, or until nothing can change its result. It takes one sample
    after another, because each parallel sample reserves as much of the budget as it might need."""
    settings: dict[str, Any] = {"kind": kind_of_vote(question.form)} if pattern in VOTES else {}
    if pattern == BASELINE:
        settings |= {"samples": MAX_VOTERS, "confidence": 1.0, "max_parallel": 1}
    return settings
