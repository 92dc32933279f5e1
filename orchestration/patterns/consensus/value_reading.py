"""Reads an answer that is a number, a time, a ratio or an expression."""

from __future__ import annotations

import re
from fractions import Fraction

from orchestration.patterns.consensus.answer_kind import AnswerKind
from orchestration.patterns.consensus.best_reading import NO_READING, AnswerReading, best_reading
from orchestration.patterns.consensus.expressions import looks_mathematical, math_key
from orchestration.patterns.consensus.final import SHORT_WORDS, exact
from orchestration.patterns.consensus.garbage import loops
from orchestration.patterns.consensus.numbers import (
    format_fraction,
    in_words,
    last_number,
    number_key,
    numbers,
    whole_number,
    whole_percentage,
)
from orchestration.patterns.consensus.refusal import says_unknown
from orchestration.patterns.consensus.statements import (
    last_statement,
    plain,
    statements,
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
_THOUSANDS = re.compile(r"(\W*[\d.,]+)\s?([kKM])\W*")
_MEASURE = re.compile(
    r"(?P<number>\W*[\d.,]+)\s?(?:[kcmµ]?[gmlsWVNJA]|kWh?|lbs?|oz|ft|in|[hL]|hrs?|min|mph|km/h|m/s|"
    r"[kMG]?Hz|K|°[CF]?|mi|yd"
    r"|USD|EUR)(?:[²³]|\^\{?[23]\}?)?\W*"
)


def read_value(kind: AnswerKind, text: str, *, percent: bool) -> AnswerReading:
    def interpret(wording: str) -> str | None:
        if kind is AnswerKind.NUMBER and is_letter(wording):
            return None
        return value_key(wording, percent=percent, words=kind is AnswerKind.NUMBER)

    named, last = statements(text), last_statement(text)
    final = named[-1] if named else last
    if kind is AnswerKind.NUMBER and final is not None and _is_two_numbers(final.wording):
        return NO_READING
    found = best_reading(text, named, interpret)
    if found.key is not None:
        return found
    if last is not None and says_unknown(last.wording):
        return found
    if last is not None and not loops(text):
        key = interpret(last.wording) if _is_value(last.wording) else None
        inferred = AnswerReading(key, 0.7, "whole") if key is not None else NO_READING
        if key is None:
            pairs = re.findall(r"(?<![\d:])\d+:\d+(?![\d:])(?:\s?[ap]\.?m\b)?", last.wording, re.IGNORECASE)
            if len(pairs) == 1 and (key := interpret(pairs[0])) is not None:
                return max(found, AnswerReading(key, 0.6, "last"), key=lambda each: each.confidence)
            number = _concluded(last.wording, percent=percent)
            inferred = AnswerReading(number_key(number), 0.6, "last") if number is not None else NO_READING
            if number is None and (number := last_number(text, percent=percent)) is not None:
                inferred = AnswerReading(number_key(number), 0.3, "number")
        found = max(found, inferred, key=lambda each: each.confidence)
    return found


def _is_two_numbers(wording: str) -> bool:
    """Whether a statement ends with two numbers and takes neither: `7 or 8`, `between 6 and 8`."""
    match = _TWO_NUMBERS.search(plain(wording))
    if match is None:
        return False
    one, two = (numbers(wording) for wording in (match[1] or match[3], match[2] or match[4]))
    return bool(one and two) and one[0] != two[0]


def _is_value(wording: str) -> bool:
    """Whether a sentence is a value, and not one that only mentions values."""
    wording = plain(wording)
    if len(wording.split()) > SHORT_WORDS:
        return False
    return (
        looks_mathematical(wording)
        or bool(_CLOCK.fullmatch(wording))
        or len(numbers(wording)) == 1
        or in_words(wording) is not None
    )


def _concluded(wording: str, *, percent: bool) -> Fraction | None:
    """The number that a sentence concludes with; numbers in digits rank before those in words."""
    if "=" not in wording:
        digits = re.findall(r"(?<![\w.])[-−]?[$€£]?\d[\d.,]*(?:\s*/\s*\d+)?%?", wording)
        money = [each for each in digits if each.lstrip("-−")[0] in "$€£"]
        for only in (money, digits):
            if len(only) == 1:
                return next(iter(numbers(only[0], percent=percent)), None)
    return last_number(wording, percent=percent)


def is_letter(wording: str) -> bool:
    """Whether a statement is one letter: an option's label or a variable's name, but not a number."""
    return len(plain(wording).strip("().:* ")) == 1 and not re.search(r"\d", wording)


def value_key(wording: str, *, percent: bool = False, words: bool = True) -> str | None:
    """The key of the value that a statement is or begins with: a number, a time, a ratio, an expression.
    `words` allows a number among words."""
    wording = plain(wording)
    clock = _CLOCK.fullmatch(wording)
    if clock is not None:
        return _time(clock)
    ratio = _RATIO.fullmatch(wording)
    if ratio is not None and int(ratio[2][:9]):
        top, bottom = (int(part[:18]) for part in ratio.groups())
        simple = Fraction(top, bottom)
        return f"{simple.numerator}:{simple.denominator}"
    wording = _SPACED.sub(lambda match: match[0].replace(" ", ""), wording)
    number = whole_number(wording)
    if number is None:
        number = whole_percentage(wording, percent=percent)
    if number is None:
        number = in_words(wording)
    if number is not None:
        return number_key(number)
    short = _THOUSANDS.fullmatch(wording) if words else None
    if short is not None and (number := whole_number(short[1])) is not None:
        return format_fraction(number * (1000 if short[2] in "kK" else 10**6))
    measure = _MEASURE.fullmatch(wording) if words else None
    if measure is not None and (number := whole_number(measure["number"])) is not None:
        return number_key(number)
    if looks_mathematical(wording):
        key = math_key(wording.replace("\\%", "").replace("%", "") if percent else wording)
        if key is not None:
            return key
    if not words and len(wording.split()) > 6:
        return exact(wording) if len(wording.split()) <= 12 else None
    if not words and not re.search(r"\d", wording):
        return exact(wording)
    return _number_in(wording, percent=percent)


def _time(clock: re.Match[str]) -> str:
    hour = int(clock[1])
    if clock[4] and clock[4].lower() == "p" and hour < 12:
        hour += 12
    elif clock[4] and clock[4].lower() == "a" and hour == 12:
        hour = 0
    return f"{hour}:{clock[2]}" + (f":{clock[3]}" if clock[3] else "")


def _number_in(wording: str, *, percent: bool) -> str | None:
    """The key of the number after the last `=` of a statement, else of its first number."""
    if "=" in wording or "≈" in wording or "\\approx" in wording:
        after = re.split(r"=|≈|\\approx", wording)[-1].strip()
        if looks_mathematical(after) and (key := math_key(after)) is not None:
            return key
        found = last_number(wording.replace("≈", "=").replace("\\approx", "="), percent=percent)
    else:
        found = next(iter(numbers(wording, percent=percent)), None)
    return number_key(found) if found is not None else None
