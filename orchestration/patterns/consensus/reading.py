"""Reads an answer as a key that is the same for equal answers, with a confidence."""

from __future__ import annotations

import json
import re
from functools import lru_cache

from orchestration.messages import GuidedDecoding
from orchestration.patterns.consensus.answer_kind import AnswerKind
from orchestration.patterns.consensus.best_reading import NO_READING, AnswerReading, best_reading
from orchestration.patterns.consensus.choice_reading import ANY_LETTER, read_choice
from orchestration.patterns.consensus.code import code_key
from orchestration.patterns.consensus.expressions import looks_mathematical, math_key
from orchestration.patterns.consensus.fields import answer_fields, whole_json
from orchestration.patterns.consensus.final import exact
from orchestration.patterns.consensus.numbers import (
    number_key,
    whole_number,
)
from orchestration.patterns.consensus.options import options_of
from orchestration.patterns.consensus.statements import (
    plain,
    statements,
    window,
)
from orchestration.patterns.consensus.value_reading import read_value

SURE_CONFIDENCE = 0.5
"""Minimum confidence of a reading that needs no confirmation."""
MIN_CONFIDENCE = 0.25
"""Below this confidence, a reading is a guess, which no vote counts."""

_CACHED_READINGS = 256
"""Readings that are cached, since a vote is counted again with every answer."""

_PERCENT = re.compile(r"%|\bper\s?cent(?:age)?\b|\bprozent\b|\bpour\s?cent\b|\bpor ciento\b", re.IGNORECASE)


def read_answer(
    kind: AnswerKind, text: str, question: str, guide: GuidedDecoding | None = None
) -> AnswerReading:
    """The reading of an answer to `question`. Explicit places rank before others and later before earlier
    ones; withdrawn ones rank last."""
    if guide is not None:
        return _guided(text, guide)
    if kind is AnswerKind.CODE:
        return _sure(code_key(text), "code")
    return _read(kind, window(text), question)


@lru_cache(maxsize=_CACHED_READINGS)
def _read(kind: AnswerKind, text: str, question: str) -> AnswerReading:
    if kind is AnswerKind.CHOICE:
        return read_choice(text, options_of(question) or ANY_LETTER)
    if kind in (AnswerKind.NUMBER, AnswerKind.MATH):
        return read_value(kind, text, percent=_PERCENT.search(question) is not None)
    return _worded(text)


def _guided(answer: str, guide: GuidedDecoding) -> AnswerReading:
    """The reading of a guided answer: JSON by its answer field, else with sorted keys; text of a regular
    expression as it is. A caller's expression is not matched here, since some never end."""
    if guide.json_schema is None:
        return _sure(answer.strip() or None, "guide")
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return NO_READING
    return _sure(_json_key(answer, value), "guide")


def _json_key(text: str, value: object) -> str:
    """The answer field of an object that has other fields, such as reasons; else the whole object."""
    if isinstance(value, dict):
        wording = [wording for _, wording in answer_fields(text)]
        if wording:
            return _plain_key(wording[-1])
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _plain_key(wording: str) -> str:
    number = whole_number(wording)
    if number is not None:
        return number_key(number)
    key = math_key(wording) if looks_mathematical(wording) else None
    return key or exact(wording) or wording


def _sure(key: str | None, form: str) -> AnswerReading:
    return AnswerReading(key, 1.0, form) if key is not None else NO_READING


def _worded(text: str) -> AnswerReading:
    """The reading of an answer that is compared literally: its value or its words."""
    found = best_reading(
        text, statements(text), lambda wording: _plain_key(plain(wording)) if exact(wording) else None
    )
    if found.key is not None and found.confidence >= MIN_CONFIDENCE:
        return found
    value = whole_json(text)
    if value is not None:
        return _sure(_json_key(text, value), "json")
    key = exact(text)
    if key is None:
        return NO_READING
    return AnswerReading(key, 0.9 if len(key.split()) <= 12 else SURE_CONFIDENCE, "whole")
