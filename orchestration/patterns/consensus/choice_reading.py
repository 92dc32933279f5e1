"""Reads which option an answer takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase

from orchestration.patterns.consensus.best_reading import NO_READING, AnswerReading, Interpret, best_reading
from orchestration.patterns.consensus.choices import choice_of, is_none, is_torn, labels_in
from orchestration.patterns.consensus.garbage import loops
from orchestration.patterns.consensus.statements import (
    Statement,
    last_statement,
    statements,
    withdrawals,
)

_CORRECT = re.compile(
    r"\b(?:is|are|ist|est|es|è|é|seems|appears|would be)\s+(?:therefore\s+|also\s+|thus\s+|"
    r"clearly\s+)?(?:the\s+|la\s+|die\s+)?(?:most\s+|only\s+)?"
    r"(?:correct|right|best|accurate|appropriate|likely|true|richtig|korrekt|correcta|correcte|corretta|"
    r"answer)\b",
    re.IGNORECASE,
)
_LEADS = re.compile(
    r"\b(?:option|choice|answer|match|completion|statement|translation|explanation|candidate|sequence|"
    r"conclusion)\b"
    r"[^.\n]{0,80}?\b(?:is|would be|are|ist|est)\b",
    re.IGNORECASE,
)
_CHOOSES = re.compile(
    r"\b(?:choose|select|pick|go with|opt for|vote for|settle on|wähle|nehme|choisis|elijo|escolho|scelgo|"
    r"kies)\b(?! (?:the )?\w+ from)",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"^[^\w\n]*(?:(?:option|choice|answer)\s+)?[(\[]?([A-Za-z]|\d{1,2}|[ivx]{1,5})(?:[)\].:*]+(?=\s|$)|"
    r"[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)
ANY_LETTER = dict.fromkeys(ascii_uppercase, "")
"""The options where the question does not show them."""
NO_OPTION = "-"
"""The key of a statement that rejects all options."""


def read_choice(text: str, options: Mapping[str, str]) -> AnswerReading:
    def interpret(wording: str) -> str | None:
        option = choice_of(wording, options)
        return (
            NO_OPTION
            if option is None and (is_none(wording, options) or is_torn(wording, options))
            else option
        )

    named = statements(text, a_line="A" not in options)
    named = [
        replace(each, wording="-none of the above")
        if each.form in _CHANNELS and interpret(each.wording) is None
        else each
        for each in named
    ]
    option = [each for each in named if interpret(each.wording) is not None]
    found = best_reading(text, [*named, *_judged_options(text, option, options)], interpret)
    if found.key is None:
        found = _inferred(text, options, interpret)
    if found.key == NO_OPTION:
        torn = [each for each in named if is_torn(each.wording, options)]
        first = labels_in(torn[-1].wording, options)[:1] if torn else []
        return AnswerReading(first[0], 0.2, "torn") if first else NO_READING
    return found


_CHANNELS = ("json", "tag", "call")
"""Forms that hold nothing but an option: any other content takes none."""


def _judged_options(text: str, named: Sequence[Statement], options: Mapping[str, str]) -> list[Statement]:
    """The sentences that judge an option: `C is correct`, `the closest option is (C)`."""
    found = []
    for pattern, before, strength in ((_CORRECT, True, 0.85), (_LEADS, False, 0.8), (_CHOOSES, False, 0.8)):
        for match in [*pattern.finditer(text)][-32:]:
            if any(each.place < match.end() and match.start() < each.end for each in named):
                continue
            start = max(text.rfind(mark, 0, match.start()) for mark in (". ", "\n", "; ")) + 1
            wording = text[start : match.start()][-200:] if before else _clause(text, match.end())
            labels = list(
                dict.fromkeys(labels_in(wording, options, bare=before or len(wording.split()) <= 4))
            )
            if len(labels) == 1:
                found.append(Statement(labels[0], match.start(), match.end(), strength, "judged"))
    return found


def _clause(text: str, begin: int) -> str:
    """The text from `begin` to the end of the clause."""
    rest = text[begin : begin + 200]
    return re.split(r"(?<!\b\w)[.;,](?=\s)|\n", rest, maxsplit=1)[0]


def _inferred(text: str, options: Mapping[str, str], interpret: Interpret) -> AnswerReading:
    """The reading where no place says that it is the answer: from a short text as a whole, its beginning, its
    last sentence, or the only label or option in it."""
    if loops(text):
        return NO_READING
    named = set(labels_in(text, options)) if len(text.split()) <= 40 else set(options)
    whole = interpret(text) if len(named) <= 1 or is_torn(text, options) else None
    if whole is not None:
        return AnswerReading(whole, 0.8, "whole")
    first, _, rest = text.strip().partition("\n")
    opening = _OPENING.match(first)
    if opening is not None and (key := choice_of(f"({opening[1]})", options)) is not None:
        taken_back = [its for each in withdrawals(text) if (its := interpret(each.wording)) is not None]
        if taken_back and len(text.split()) <= 80:
            return AnswerReading(taken_back[-1], 0.6, "corrected")
        alone = first[opening.end() :].strip(" *_.") == ""
        if alone or (choice_of(first, options) == key and not _OPENING.search(rest)):
            return AnswerReading(key, 0.8 if alone else 0.6 if len(text.split()) <= 80 else 0.2, "first")
    last = last_statement(text)
    if last is not None:
        ended = (
            text.rstrip().endswith((".", "!", ")", "*", '"', "”", "]", "}"))
            or len(last.wording.split()) <= 3 * 4
        )
        labels = list(dict.fromkeys(labels_in(last.wording, options, bare=len(last.wording.split()) <= 8)))
        if is_none(last.wording, options):
            return AnswerReading(NO_OPTION, 0.6, "last")
        if len(labels) == 1 and ended:
            return AnswerReading(labels[0], 0.6, "last")
        key = (
            choice_of(last.wording, options)
            if ended and not labels and not re.search(r"[\\^=_{}]", last.wording)
            else None
        )
        if key is not None:
            return AnswerReading(key, 0.55, "last")
    bracketed = {match for match in re.findall(r"\(([A-Z])\)", text) if match in options}
    if len(bracketed) == 1:
        return AnswerReading(bracketed.pop(), 0.5, "only")
    letters = [label for label in re.findall(r"\b[A-Z]\b", text[-4_000:]) if label in options]
    return AnswerReading(letters[-1], 0.15, "label") if letters else NO_READING
