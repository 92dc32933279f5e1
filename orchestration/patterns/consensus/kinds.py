"""Finds the kind of answer that a question wants, which decides when two answers are the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from orchestration.messages import GuidedDecoding
from orchestration.patterns.consensus.answer_kind import AnswerKind
from orchestration.patterns.consensus.expressions import looks_mathematical
from orchestration.patterns.consensus.fields import whole_json
from orchestration.patterns.consensus.final import SHORT_WORDS, final_answer, is_short
from orchestration.patterns.consensus.numbers import numbers
from orchestration.patterns.consensus.options import options_of
from orchestration.patterns.consensus.reading import MIN_CONFIDENCE, read_answer
from orchestration.patterns.consensus.statements import EXPLICIT, last_statement, window
from orchestration.patterns.consensus.value_reading import value_key

_NUMBER = re.compile(
    r"\bhow\s+(?:many|much|old|tall|far|fast|long|heavy)\b|\b(?:calculate|compute|sum\s+of|"
    r"difference\s+between"
    r"|product\s+of|average\s+of|what\s+percent(?:age)?|remainder)\b|\bwhat\s+is\s+[-(]?\d"
    r"|\d\s*[+*×÷^=]\s*[-(]?\d|\d\)?\s+[-/x]\s+\(?\d",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```|\bdef\s+\w+\(|\b(?:write|implement|create|complete|fix|refactor)\b[^.?!\n]{0,60}"
    r"\b(?:function|program|script|code|class|method|query|regex)\b|>>> ",
    re.IGNORECASE,
)
_WORDY = re.compile(r"\b(?:why|explain|describe|compare|discuss|tell|story|essay|poem|list)\b", re.IGNORECASE)
_EXPLAIN_IT = re.compile(
    r"\bexplain\b(?=\s*(?:[,.;:!?)\n]|$)|\s+(?:briefly|shortly|first|step|it\b|how you|"
    r"(?:your|each|the|all|every)\s+(?:\w+\s+)?"
    r"(?:reasoning|answer|steps?|work|working|solution|calculations?|method|thinking|approach)\b))",
    re.IGNORECASE,
)
"""A question that also asks for the way to its answer."""


_FENCED = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_NUMERIC_SHARE = 2 / 3
"""The share of answers with a recognisable kind that must have one kind, so that one refusal changes
nothing."""


def asked_kind(question: str, guide: GuidedDecoding | None = None) -> AnswerKind:
    """The kind that the question alone tells; `AUTO` where the answers must decide."""
    if guide is not None:
        return AnswerKind.EXACT
    if options_of(question):
        return AnswerKind.CHOICE
    text = _FENCED.sub(_code_alone, window(question))
    if _CODE.search(text):
        return AnswerKind.CODE
    if _NUMBER.search(text) and not _WORDY.search(text):
        return AnswerKind.NUMBER
    return AnswerKind.AUTO


def kind_of(question: str, answers: Sequence[str], guide: GuidedDecoding | None = None) -> AnswerKind:
    """The kind of the answers to a question; never `AUTO`. The ends of the answers count more than the words
    of the question: a number, an option, a formula, a program. Other short answers are compared literally,
    and long ones by their meaning."""
    wanted = asked_kind(question, guide)
    answers = [window(answer) for answer in answers]
    if guide is not None or not answers:
        return wanted if wanted is not AnswerKind.AUTO else AnswerKind.TEXT
    endings = [_ending(answer) for answer in answers]
    if wanted is AnswerKind.CHOICE:
        choices = sum(key_of(AnswerKind.CHOICE, answer, question) is not None for answer in answers)
        if 3 * choices >= len(answers) or sum(each in _VALUES for each in endings) < len(endings) - choices:
            return AnswerKind.CHOICE
        wanted = AnswerKind.AUTO
    programs = _mostly(bool(_PROGRAM.search(answer)) for answer in answers)
    if wanted is AnswerKind.CODE:
        if programs or not _mostly(each in _VALUES for each in endings):
            return AnswerKind.CODE
        wanted = AnswerKind.AUTO
    if programs and wanted is AnswerKind.AUTO and not any(each is AnswerKind.NUMBER for each in endings):
        return AnswerKind.CODE
    if _mostly(each in _VALUES for each in endings):
        return AnswerKind.MATH if endings.count(AnswerKind.MATH) * 2 > len(endings) else AnswerKind.NUMBER
    if wanted is AnswerKind.NUMBER:
        return wanted
    asks = _is_sum(question) or _asks_number(question)
    if asks and _mostly(_ends_in_number(answer) for answer in answers):
        return AnswerKind.NUMBER
    if all(is_short(answer) or whole_json(answer) is not None for answer in answers):
        return AnswerKind.EXACT
    return AnswerKind.TEXT


_VALUES = (AnswerKind.NUMBER, AnswerKind.MATH)
_PROGRAM = re.compile(
    r"```(?!json|latex|math|text)[^\n]*\n|^[ \t]*(?:def|class|import|from)\s+\w+", re.MULTILINE
)


def _code_alone(match: re.Match[str]) -> str:
    """A fenced block, or '' for JSON that only shows the form of the answer."""
    shown = match[1].strip()
    return "" if shown.startswith(("{", "[")) and not re.search(r"[;]|\bdef\b|=>", shown) else match[0]


def _mostly(values: Iterable[bool]) -> bool:
    found = list(values)
    return sum(found) >= _NUMERIC_SHARE * len(found) > 0


def _ending(answer: str) -> AnswerKind | None:
    """The kind of an answer's final statement: a number, a formula, or anything else; None where it has
    none."""
    wording = final_answer(answer, min_strength=EXPLICIT)
    if wording is None:
        wording = answer if len(answer.split()) <= SHORT_WORDS else None
    if wording is None:
        return None
    return value_kind(wording) or AnswerKind.EXACT


def value_kind(wording: str) -> AnswerKind | None:
    words = wording.split()
    key = value_key(wording)
    if key is None or len(words) > 3 * SHORT_WORDS:
        return None
    if re.fullmatch(r"-?[\d./:]+", key):
        return (
            AnswerKind.NUMBER
            if re.match(r"[\W_]*(?:\w{1,6}\s*=)?[\W_]*[\d.]", wording) or len(words) <= 3 or "\\" in wording
            else None
        )
    return AnswerKind.MATH if looks_mathematical(wording) else None


def _is_sum(question: str) -> bool:
    """Whether a question gives numbers to calculate with."""
    return len(numbers(question[-8_000:])) >= 2 and not _WORDY.search(question)


def _asks_number(question: str) -> bool:
    """Whether a question asks for a number, and for nothing else but the way to it."""
    text = _EXPLAIN_IT.sub("", window(question))
    return _NUMBER.search(text) is not None and _WORDY.search(text) is None


def _ends_in_number(answer: str) -> bool:
    last = last_statement(window(answer))
    return last is not None and bool(numbers(last.wording))


def key_of(kind: AnswerKind, answer: str, question: str, guide: GuidedDecoding | None = None) -> str | None:
    """The key that equal answers share. None for an invalid answer: one that names no number or option, does
    not follow the guide, or is empty. `TEXT` has no keys: see `similarity_matrix`."""
    found = read_answer(kind, answer, question, guide)
    return found.key if found.confidence >= MIN_CONFIDENCE else None


def cut_short(kind: AnswerKind, answer: str, *, whole: bool) -> bool:
    """Whether an answer ran out of tokens before it came to its number or option."""
    return (
        not whole
        and kind in (*_VALUES, AnswerKind.CHOICE)
        and final_answer(answer, min_strength=EXPLICIT) is None
    )
