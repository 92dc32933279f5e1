"""What an answer says, as a key that is the same for the same answers, and how surely it was read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from string import ascii_uppercase

from orchestration.messages import GuidedDecoding
from orchestration.patterns.consensus.answer_kind import AnswerKind
from orchestration.patterns.consensus.choices import choice_of, is_none, is_torn, labels_in, options_of
from orchestration.patterns.consensus.code import code_key
from orchestration.patterns.consensus.expressions import looks_mathematical, math_key
from orchestration.patterns.consensus.fields import answer_fields, whole_json
from orchestration.patterns.consensus.final import SHORT_WORDS, exact
from orchestration.patterns.consensus.garbage import loops
from orchestration.patterns.consensus.numbers import (
    in_words,
    last_number,
    numbers,
    settled,
    whole_number,
    whole_percentage,
    written,
)
from orchestration.patterns.consensus.statements import (
    EXPLICIT,
    NEXT_QUESTION,
    SEVERAL,
    WITHDRAWN,
    Statement,
    last_statement,
    plain,
    statements,
    window,
    withdrawals,
)

SURE_CONFIDENCE = 0.5
"""From this confidence on, a reading needs nobody who confirms it."""
MIN_CONFIDENCE = 0.25
"""Below, a reading is a guess, which no vote counts."""

_KEPT = 256
"""Readings that are remembered: a vote is counted anew with every answer that comes in."""

_PERCENT = re.compile(r"%|\bper\s?cent(?:age)?\b|\bprozent\b|\bpour\s?cent\b|\bpor ciento\b", re.IGNORECASE)
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
_DIGITS = r"([-−]?[$€£]?\d[\d.,]*%?)"
_TWO_NUMBERS = re.compile(
    rf"(?:(?<![\w.]){_DIGITS}\s(?:or|oder|ou|o|of)\s{_DIGITS}|"
    rf"\b(?:between|zwischen|entre|tra|tussen)\s{_DIGITS}\s(?:and|und|et|y|e|en)\s{_DIGITS})[^\d=]*$",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"\W*(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\s*([ap])?\.?\s*(m)?\b\.?\W*", re.IGNORECASE)
_RATIO = re.compile(r"\W*(\d+)\s*:\s*(\d+)\W*")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d])")
_OPENING = re.compile(
    r"^[^\w\n]*(?:(?:option|choice|answer)\s+)?[(\[]?([A-Za-z]|\d{1,2}|[ivx]{1,5})(?:[)\].:*]+(?=\s|$)|"
    r"[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)
_REFUSES = re.compile(
    r"\b(?:can\s?not|can['’]t|could not|unable to|impossible to) (?:be )?(?:determined?|answer(?:ed)?|"
    r"calculated?|find|found|"
    r"provided?|say|tell|know|solved?|help|assist)\b|\bnot enough information\b|\binsufficient (?:data|"
    r"information)\b|"
    r"\bI (?:don['’]t|do not) know\b|\bnicht (?:beantworten|bestimm\w+|möglich)\b|\bne peux pas\b|"
    r"\bno (?:puedo|se puede)\b|"
    r"\bnon (?:posso|è possibile)\b|\bnão (?:posso|é possível)\b|\bkan (?:ik )?niet\b",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"(\W*[\d.,]+)\s?([kKM])\W*")
_MEASURE = re.compile(
    r"(?P<number>\W*[\d.,]+)\s?(?:[kcmµ]?[gmlsWVNJA]|kWh?|lbs?|oz|ft|in|[hL]|hrs?|min|mph|km/h|m/s|"
    r"[kMG]?Hz|K|°[CF]?|mi|yd"
    r"|USD|EUR)(?:[²³]|\^\{?[23]\}?)?\W*"
)


@dataclass(frozen=True, slots=True)
class AnswerReading:
    """`key` is the same for the same answers, None where nothing could be read; `confidence` is from 0 to 1;
    `form` names the place that was read."""

    key: str | None
    confidence: float
    form: str


NO_READING = AnswerReading(None, 0.0, "")

Interpret = Callable[[str], str | None]


def read_answer(
    kind: AnswerKind, text: str, question: str, guide: GuidedDecoding | None = None
) -> AnswerReading:
    """What `text` answers to `question`. Explicit places go before others, and later ones before earlier;
    what the text takes back goes last."""
    if guide is not None:
        return _guided(text, guide)
    if kind is AnswerKind.CODE:
        return _sure(code_key(text), "code")
    return _read(kind, window(text), question)


@lru_cache(maxsize=_KEPT)
def _read(kind: AnswerKind, text: str, question: str) -> AnswerReading:
    if kind is AnswerKind.CHOICE:
        return _choice(text, options_of(question) or _ANY_LETTER)
    if kind in (AnswerKind.NUMBER, AnswerKind.MATH):
        return _value(kind, text, percent=_PERCENT.search(question) is not None)
    return _worded(text)


def _guided(answer: str, guide: GuidedDecoding) -> AnswerReading:
    """JSON by its answer field, else with its keys sorted; text that follows a regular expression as it is: a
    caller's is not tried here, since some take for ever."""
    if guide.json_schema is None:
        return _sure(answer.strip() or None, "guide")
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return NO_READING
    return _sure(_json_key(answer, value), "guide")


def _json_key(text: str, value: object) -> str:
    """The answer field of an object that has something beside it, such as its reasons; else all of it."""
    if isinstance(value, dict):
        said = [said for _, said in answer_fields(text)]
        if said:
            return _plain_key(said[-1])
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _plain_key(said: str) -> str:
    number = whole_number(said)
    if number is not None:
        return written(settled(number))
    key = math_key(said) if looks_mathematical(said) else None
    return key or exact(said) or said


def _sure(key: str | None, form: str) -> AnswerReading:
    return AnswerReading(key, 1.0, form) if key is not None else NO_READING


# numbers and expressions


def _value(kind: AnswerKind, text: str, *, percent: bool) -> AnswerReading:
    def interpret(said: str) -> str | None:
        if kind is AnswerKind.NUMBER and is_letter(said):
            return None
        return value_key(said, percent=percent, words=kind is AnswerKind.NUMBER)

    named, last = statements(text), last_statement(text)
    final = named[-1] if named else last
    if kind is AnswerKind.NUMBER and final is not None and _is_two_numbers(final.said):
        return NO_READING
    found = _best(text, named, interpret)
    if found.key is not None:
        return found
    if last is not None and _REFUSES.search(last.said):
        return found
    if last is not None and not loops(text):
        key = interpret(last.said) if _is_value(last.said) else None
        inferred = AnswerReading(key, 0.7, "whole") if key is not None else NO_READING
        if key is None:
            pairs = re.findall(r"(?<![\d:])\d+:\d+(?![\d:])(?:\s?[ap]\.?m\b)?", last.said, re.IGNORECASE)
            if len(pairs) == 1 and (key := interpret(pairs[0])) is not None:
                return max(found, AnswerReading(key, 0.6, "last"), key=lambda each: each.confidence)
            number = _concluded(last.said, percent=percent)
            inferred = (
                AnswerReading(written(settled(number)), 0.6, "last") if number is not None else NO_READING
            )
            if number is None and (number := last_number(text, percent=percent)) is not None:
                inferred = AnswerReading(written(settled(number)), 0.3, "number")
        found = max(found, inferred, key=lambda each: each.confidence)
    return found


def _is_two_numbers(said: str) -> bool:
    """Whether a statement ends in two numbers of which it takes neither: `7 or 8`, `between 6 and 8`."""
    match = _TWO_NUMBERS.search(plain(said))
    if match is None:
        return False
    one, two = (numbers(said) for said in (match[1] or match[3], match[2] or match[4]))
    return bool(one and two) and one[0] != two[0]


def _is_value(said: str) -> bool:
    """Whether a sentence is a value, and does not only speak of some."""
    said = plain(said)
    if len(said.split()) > SHORT_WORDS:
        return False
    return (
        looks_mathematical(said)
        or bool(_CLOCK.fullmatch(said))
        or len(numbers(said)) == 1
        or in_words(said) is not None
    )


def _concluded(said: str, *, percent: bool) -> Fraction | None:
    """The number that a sentence comes to; numbers in digits go before those in words."""
    if "=" not in said:
        digits = re.findall(r"(?<![\w.])[-−]?[$€£]?\d[\d.,]*(?:\s*/\s*\d+)?%?", said)
        money = [each for each in digits if each.lstrip("-−")[0] in "$€£"]
        for only in (money, digits):
            if len(only) == 1:
                return next(iter(numbers(only[0], percent=percent)), None)
    return last_number(said, percent=percent)


def is_letter(said: str) -> bool:
    """Whether a statement is one letter: the label of an option or the name of a variable, and no number."""
    return len(plain(said).strip("().:* ")) == 1 and not re.search(r"\d", said)


def value_key(said: str, *, percent: bool = False, words: bool = True) -> str | None:
    """The value that a statement is, or begins with: a number, a time, a ratio, an expression. `words` says
    that a number may stand among words."""
    said = plain(said)
    clock = _CLOCK.fullmatch(said)
    if clock is not None:
        return _time(clock)
    ratio = _RATIO.fullmatch(said)
    if ratio is not None and int(ratio[2][:9]):
        top, bottom = (int(part[:18]) for part in ratio.groups())
        simple = Fraction(top, bottom)
        return f"{simple.numerator}:{simple.denominator}"
    said = _SPACED.sub(lambda match: match[0].replace(" ", ""), said)
    number = whole_number(said)
    if number is None:
        number = whole_percentage(said, percent=percent)
    if number is None:
        number = in_words(said)
    if number is not None:
        return written(settled(number))
    short = _THOUSANDS.fullmatch(said) if words else None
    if short is not None and (number := whole_number(short[1])) is not None:
        return written(number * (1000 if short[2] in "kK" else 10**6))
    measure = _MEASURE.fullmatch(said) if words else None
    if measure is not None and (number := whole_number(measure["number"])) is not None:
        return written(settled(number))
    if looks_mathematical(said):
        key = math_key(said.replace("\\%", "").replace("%", "") if percent else said)
        if key is not None:
            return key
    if not words and len(said.split()) > 6:
        return exact(said) if len(said.split()) <= 12 else None
    if not words and not re.search(r"\d", said):
        return exact(said)
    return _number_in(said, percent=percent)


def _time(clock: re.Match[str]) -> str:
    hour = int(clock[1])
    if clock[4] and clock[4].lower() == "p" and hour < 12:
        hour += 12
    elif clock[4] and clock[4].lower() == "a" and hour == 12:
        hour = 0
    return f"{hour}:{clock[2]}" + (f":{clock[3]}" if clock[3] else "")


def _number_in(said: str, *, percent: bool) -> str | None:
    """What a statement comes to: after its last `=`, else its first number."""
    if "=" in said or "≈" in said or "\\approx" in said:
        after = re.split(r"=|≈|\\approx", said)[-1].strip()
        if looks_mathematical(after) and (key := math_key(after)) is not None:
            return key
        found = last_number(said.replace("≈", "=").replace("\\approx", "="), percent=percent)
    else:
        found = next(iter(numbers(said, percent=percent)), None)
    return written(settled(found)) if found is not None else None


# options

_ANY_LETTER = dict.fromkeys(ascii_uppercase, "")
"""Where the question does not show its options."""
_NOT_ANY = "-"
"""What a statement takes that refuses all options."""


def _choice(text: str, options: Mapping[str, str]) -> AnswerReading:
    def interpret(said: str) -> str | None:
        taken = choice_of(said, options)
        return _NOT_ANY if taken is None and (is_none(said, options) or is_torn(said, options)) else taken

    named = statements(text, a_line="A" not in options)
    named = [
        replace(each, said="-none of the above")
        if each.form in _CHANNELS and interpret(each.said) is None
        else each
        for each in named
    ]
    taken = [each for each in named if interpret(each.said) is not None]
    found = _best(text, [*named, *_said_right(text, taken, options)], interpret)
    if found.key is None:
        found = _inferred(text, options, interpret)
    if found.key == _NOT_ANY:
        torn = [each for each in named if is_torn(each.said, options)]
        first = labels_in(torn[-1].said, options)[:1] if torn else []
        return AnswerReading(first[0], 0.2, "torn") if first else NO_READING
    return found


_CHANNELS = ("json", "tag", "call")
"""Places where nothing but an option is expected: anything else takes none."""


def _said_right(text: str, named: Sequence[Statement], options: Mapping[str, str]) -> list[Statement]:
    """`C is correct`, `the closest option is (C)`: sentences that judge an option."""
    found = []
    for pattern, before, strength in ((_CORRECT, True, 0.85), (_LEADS, False, 0.8), (_CHOOSES, False, 0.8)):
        for match in [*pattern.finditer(text)][-32:]:
            if any(each.place < match.end() and match.start() < each.end for each in named):
                continue
            start = max(text.rfind(mark, 0, match.start()) for mark in (". ", "\n", "; ")) + 1
            said = text[start : match.start()][-200:] if before else _clause(text, match.end())
            labels = list(dict.fromkeys(labels_in(said, options, bare=before or len(said.split()) <= 4)))
            if len(labels) == 1:
                found.append(Statement(labels[0], match.start(), match.end(), strength, "judged"))
    return found


def _clause(text: str, begin: int) -> str:
    """What follows, up to the end of the sentence or its part."""
    rest = text[begin : begin + 200]
    return re.split(r"(?<!\b\w)[.;,](?=\s)|\n", rest, maxsplit=1)[0]


def _inferred(text: str, options: Mapping[str, str], interpret: Interpret) -> AnswerReading:
    """Where no place says that it is the answer: a short text as it is, what it begins with, its last
    sentence, the only label or the only option in it."""
    if loops(text):
        return NO_READING
    named = set(labels_in(text, options)) if len(text.split()) <= 40 else set(options)
    whole = interpret(text) if len(named) <= 1 or is_torn(text, options) else None
    if whole is not None:
        return AnswerReading(whole, 0.8, "whole")
    first, _, rest = text.strip().partition("\n")
    opening = _OPENING.match(first)
    if opening is not None and (key := choice_of(f"({opening[1]})", options)) is not None:
        taken_back = [its for each in withdrawals(text) if (its := interpret(each.said)) is not None]
        if taken_back and len(text.split()) <= 80:
            return AnswerReading(taken_back[-1], 0.6, "corrected")
        alone = first[opening.end() :].strip(" *_.") == ""
        if alone or (choice_of(first, options) == key and not _OPENING.search(rest)):
            return AnswerReading(key, 0.8 if alone else 0.6 if len(text.split()) <= 80 else 0.2, "first")
    last = last_statement(text)
    if last is not None:
        ended = (
            text.rstrip().endswith((".", "!", ")", "*", '"', "”", "]", "}"))
            or len(last.said.split()) <= 3 * 4
        )
        labels = list(dict.fromkeys(labels_in(last.said, options, bare=len(last.said.split()) <= 8)))
        if is_none(last.said, options):
            return AnswerReading(_NOT_ANY, 0.6, "last")
        if len(labels) == 1 and ended:
            return AnswerReading(labels[0], 0.6, "last")
        key = (
            choice_of(last.said, options)
            if ended and not labels and not re.search(r"[\\^=_{}]", last.said)
            else None
        )
        if key is not None:
            return AnswerReading(key, 0.55, "last")
    bracketed = {match for match in re.findall(r"\(([A-Z])\)", text) if match in options}
    if len(bracketed) == 1:
        return AnswerReading(bracketed.pop(), 0.5, "only")
    letters = [label for label in re.findall(r"\b[A-Z]\b", text[-4_000:]) if label in options]
    return AnswerReading(letters[-1], 0.15, "label") if letters else NO_READING


# other answers


def _worded(text: str) -> AnswerReading:
    """What is compared as it is: the value or the words of the answer."""
    found = _best(text, statements(text), lambda said: _plain_key(plain(said)) if exact(said) else None)
    if found.key is not None and found.confidence >= MIN_CONFIDENCE:
        return found
    value = whole_json(text)
    if value is not None:
        return _sure(_json_key(text, value), "json")
    key = exact(text)
    if key is None:
        return NO_READING
    return AnswerReading(key, 0.9 if len(key.split()) <= 12 else SURE_CONFIDENCE, "whole")


# the choice among places


def _best(text: str, found: Sequence[Statement], interpret: Interpret) -> AnswerReading:
    """The latest of the explicit places, else the strongest; without those that a text takes back, or that
    answer other questions too."""
    said = sorted(((each, interpret(each.said)) for each in found), key=lambda each: each[0].place)
    read = _of_one_row(text, _before_next(text, said))
    if read:
        last = read[-1][0].place
        back = [each for each in withdrawals(text) if each.place >= last]
        corrected = [(each, key) for each in back if (key := interpret(each.said)) is not None]
        if back:
            read = [(replace(each, strength=0.3 * each.strength), key) for each, key in read]
        read += corrected[-1:]
    if not read:
        return NO_READING
    explicit = [each for each in read if each[0].strength >= EXPLICIT]
    best, key = explicit[-1] if explicit else max(read, key=lambda each: (each[0].strength, each[0].place))
    others = {other for each, other in explicit if other != key}
    return AnswerReading(key, round(best.strength - (0.1 if others else 0.0), 3), best.form)


Said = list[tuple[Statement, str | None]]
Read = list[tuple[Statement, str]]


def _before_next(text: str, read: Said) -> Said:
    """Without what comes after a model went on to ask itself another question."""
    first = next((each for each, key in read if key is not None and each.strength >= EXPLICIT), None)
    if first is None or (after := NEXT_QUESTION.search(text, first.end)) is None:
        return read
    return [each for each in read if each[0].place < after.start()]


def _of_one_row(text: str, said: Said) -> Read:
    """A row of statements that differ, one right after the other, answers several questions or is undecided:
    its first one counts, where that follows from something. Otherwise nothing in it is sure."""
    kept: Read = []
    doubtful: Read = []
    row: Said = []
    for each, key in [*said, (Statement("", len(text), len(text), 0, ""), None)]:
        if row and not _follows_at_once(text, row[-1][0], each):
            read = [(one, its) for one, its in row if its is not None]
            if len({its for _, its in row}) == 1 and not _is_headed(text, row[0][0]):
                kept += read
            else:
                (kept if _is_reasoned(text, row[0][0]) else doubtful).extend(read[:1])
            row = []
        row.append((each, key))
    return kept or [(replace(each, strength=0.4), key) for each, key in doubtful[:1]]


def _follows_at_once(text: str, one: Statement, other: Statement) -> bool:
    if one.form != other.form or one.form not in ("marker", "call"):
        return False
    if (
        one.form == "marker"
        and text[one.place : one.place + 10].casefold() != text[other.place : other.place + 10].casefold()
    ):
        return False
    between = text[one.end : other.place]
    return len(re.findall(r"[^\W\d]{2,}", between)) <= 2 and WITHDRAWN.search(between) is None


def _is_headed(text: str, said: Statement) -> bool:
    return said.form == "marker" and SEVERAL.search(text[max(0, said.place - 90) : said.place]) is not None


def _is_reasoned(text: str, said: Statement) -> bool:
    return (
        said.form == "marker"
        and not _is_headed(text, said)
        and len(text[max(0, said.place - 200) : said.place].split()) >= 8
    )
