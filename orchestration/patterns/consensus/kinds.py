"""What kind of answer a question wants, since that says when two answers are the same."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum

from orchestration.messages import Guide
from orchestration.patterns.consensus.choices import choice_of, options_of
from orchestration.patterns.consensus.code import code_key
from orchestration.patterns.consensus.final import exact, final_answer, is_short
from orchestration.patterns.consensus.numbers import last_number, numbers, written

LOOP_WORDS = 24
LOOP_SHARE = 0.25
"""A text of that many words of which so few differ is a small model that has lost its way."""

_NUMBER = re.compile(
    r"\bhow\s+(?:many|much|old|tall|far|fast|long|heavy)\b|\b(?:calculate|compute|sum\s+of|difference\s+between"
    r"|product\s+of|average\s+of|what\s+percent(?:age)?|remainder)\b|\bwhat\s+is\s+[-(]?\d"
    r"|\d\s*[+*×÷^=]\s*[-(]?\d|\d\)?\s+[-/x]\s+\(?\d",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```|\bdef\s+\w+\(|\b(?:write|implement|create|complete|fix|refactor)\b[^.?!\n]{0,60}"
    r"\b(?:function|program|script|code|class|method|query|regex)\b|>>> ",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"%|\bper\s?cent(?:age)?\b", re.IGNORECASE)
_WORDY = re.compile(r"\b(?:why|explain|describe|compare|discuss|tell|story|essay|poem|list)\b", re.IGNORECASE)


class Kind(StrEnum):
    """`auto` finds it from the question and the answers."""

    AUTO = "auto"
    EXACT = "exact"
    NUMBER = "number"
    CHOICE = "choice"
    CODE = "code"
    TEXT = "text"


def asked_kind(question: str, guide: Guide | None = None) -> Kind:
    """What the question alone says; `AUTO` where the answers have to."""
    if guide is not None:
        return Kind.EXACT
    if options_of(question):
        return Kind.CHOICE
    if _CODE.search(question):
        return Kind.CODE
    if _NUMBER.search(question) and not _WORDY.search(question):
        return Kind.NUMBER
    return Kind.AUTO


def kind_of(question: str, answers: Sequence[str], guide: Guide | None = None) -> Kind:
    """Never `AUTO`: where the question does not say, short answers are compared as they are, answers with a
    program as programs, all others by what they mean."""
    asked = asked_kind(question, guide)
    if asked is not Kind.AUTO:
        return asked
    if answers and all("```" in answer for answer in answers):
        return Kind.CODE
    if answers and all(is_short(answer) for answer in answers):
        return Kind.EXACT
    return Kind.TEXT


def key_of(kind: Kind, answer: str, question: str, guide: Guide | None = None) -> str | None:
    """What the same answers have in common. None for an answer that is none: it names no number or option,
    does not meet the guide, is empty. `TEXT` has no keys: see `likeness`."""
    if guide is not None:
        return _guided(answer, guide)
    if kind is Kind.NUMBER:
        return _number(answer, percent=_PERCENT.search(question) is not None)
    if kind is Kind.CHOICE:
        return choice_of(answer, options_of(question))
    if kind is Kind.CODE:
        return code_key(answer)
    return exact(answer)


def cut_short(kind: Kind, answer: str, *, whole: bool) -> bool:
    """Whether an answer ran out of tokens before it came to the number or option it reasoned towards."""
    return not whole and kind in (Kind.NUMBER, Kind.CHOICE) and final_answer(answer) is None


def is_garbage(text: str) -> bool:
    """Whether a text says nothing: no letter or digit, or the same few words over and over."""
    words = text.casefold().split()
    if not any(each.isalnum() for each in text):
        return True
    return len(words) >= LOOP_WORDS and len(set(words)) < LOOP_SHARE * len(words)


def _guided(answer: str, guide: Guide) -> str | None:
    """JSON with its keys sorted; text that follows a regular expression as it is: a caller's is not tried
    here, since some take for ever."""
    if guide.json_schema is None:
        return answer.strip() or None
    try:
        return json.dumps(json.loads(answer), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


def _number(answer: str, *, percent: bool) -> str | None:
    said = final_answer(answer)
    found = None
    if said is not None and "=" not in said:
        found = next(iter(numbers(said, percent=percent)), None)
    elif said is not None:
        found = last_number(said, percent=percent)
    if found is None:
        found = last_number(answer, percent=percent)
    return written(found) if found is not None else None
