"""Mathematical answers: expressions, sets, intervals and equations, as keys that are the same for equal ones.

A rational expression is evaluated exactly, any other one as a complex number; one with variables is evaluated
at fixed points, which distinguishes different expressions almost surely (Schwartz, JACM 27, 1980). A computer
algebra system would simplify them instead, but has no known time limit; here, the length of the text limits
the work.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction

from orchestration.patterns.consensus.expression_value import (
    CONSTANTS,
    FUNCTIONS,
    OTHER_NAMES,
    SAMPLE_POINTS,
    ExpressionParser,
    UnreadableExpression,
    Value,
)
from orchestration.patterns.consensus.numbers import in_ascii, number_key

MAX_CHARS = 300
"""Maximum characters of an expression that is evaluated; a longer one is compared as text."""
_MAX_BOTTOM = 10**30
_MAX_DIGITS = 40
_DIGITS = 9
"""Digits in which equal floating values agree."""


_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|bigl?|bigr?|Bigl?|Bigr?|limits|quad|qquad|[,;:!> ])|[$]|\\\(|"
    r"\\\)|"
    r"\\\[|\\\]|~|°|\^\s*\{?\s*\\circ\s*\}?|\\circ|\\degree"
)
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|operatorname|mbox|rm)\s*\{([^{}]*)\}")
_COMMANDS = {
    "dfrac": r"\frac",
    "tfrac": r"\frac",
    "cfrac": r"\frac",
    "cdot": "*",
    "times": "*",
    "div": "/",
    "pi": " pi ",
    "infty": " infinity ",
    "cup": " U ",
    "pm": " ± ",
    "mp": " ± ",
    "lbrace": "⟨",
    "rbrace": "⟩",
    "leq": "≤",
    "geq": "≥",
    "le": "≤",
    "ge": "≥",
}
_COMMAND = re.compile(rf"\\({'|'.join(sorted(_COMMANDS, key=len, reverse=True))})(?![A-Za-z])")
_SPELT = (
    ("×", "*"),
    ("·", "*"),
    ("⋅", "*"),
    ("÷", "/"),
    ("−", "-"),
    ("–", "-"),
    ("π", " pi "),
    ("∞", " infinity "),
    ("∪", " U "),
    (r"\{", "⟨"),
    (r"\}", "⟩"),
    (r"\%", "%"),
    ("<=", "≤"),
    (">=", "≥"),
    ("**", "^"),
    ("²", "^2"),
    ("³", "^3"),
    ("{,}", ","),
)
_UNIT = re.compile(
    r"(?<=[\d})])\s*(?:\\[ ,;!])*\\(?:text|mathrm|mbox)\s*\{\s*(?!and\b|"
    r"or\b)[^{}]*\}(?:\s*\^\s*\{?[23]\}?)?\s*\$?\s*\Z|"
    r"(?<=[\d})])\s*\b(?:square |cubic |sq\.? )?(?:mm|cm|km|kg|mg|ml|ft|feet|inch(?:es)?|met(?:er|re)s?|"
    r"units?|degrees?|hours?|minutes?|seconds?|dollars?|cents?|mph|hz|years?|days?|grams?|people|ways)"
    r"(?:\s*\^\s*\{?[23]\}?)?\s*\Z",
    re.IGNORECASE,
)
_NAMED = re.compile(r"^\s*[A-Za-z](?:_\{?\w+\}?)?(?:\([a-z]\))?\s*(?:=|\\in\b|∈|:=)\s*(?=\S)")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d)")


def math_key(text: str) -> str | None:
    """The key of a mathematical answer; None where the text is not one."""
    text = _normal(text)
    if not text or len(text) > MAX_CHARS:
        return None
    try:
        return _answer(text)
    except (UnreadableExpression, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None


def looks_mathematical(text: str) -> bool:
    """Whether a short text is written as mathematics, and not in words."""
    if len(text) > MAX_CHARS:
        return False
    if re.search(r"\\(?:d?frac|sqrt|pi|cup|infty|binom|pm|log|ln|sin|cos)\b|[√π∞∪]", text):
        return True
    bare = _normal(text)
    words = [word for word in re.findall(r"[A-Za-z]{2,}", bare) if word not in FUNCTIONS | CONSTANTS.keys()]
    words = [word for word in words if word not in OTHER_NAMES]
    return not words and bool(re.search(r"[\d^+*/=(\[]|^[A-Za-z]$", bare))


def _normal(text: str) -> str:
    if len(text) > 4 * MAX_CHARS:
        return ""
    text = in_ascii(text).strip().strip("`").rstrip(".")
    text = _UNIT.sub("", text)
    text = _WRAPPED.sub(r" \1 ", text)
    text = _COMMAND.sub(lambda match: _COMMANDS[match[1]], text)
    for spelt, plain in _SPELT:
        text = text.replace(spelt, plain)
    text = _DROPPED.sub(" ", text)
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = " ".join(text.split())
    while (named := _NAMED.match(text)) is not None:
        text = text[named.end() :]
    return text.strip()


def _answer(text: str) -> str:
    """The key of a union of intervals, a set, a tuple, a list, an equation, or one expression."""
    if " U " in text:
        return "U".join(sorted(_answer(part.strip()) for part in text.split(" U ")))
    if text.startswith("⟨") and text.endswith("⟩"):
        return "{" + ",".join(sorted(_values(_split(text[1:-1])))) + "}"
    if text[0] in "([" and text[-1] in ")]" and _closes(text) == len(text) - 1:
        parts = _split(text[1:-1])
        if len(parts) > 1:
            return text[0] + ",".join(_one(part) for part in parts) + text[-1]
    parts = _split(re.sub(r"\s*,?\s+\b(?:and|or|und|oder|et|ou)\b\s+", ", ", text))
    if len(parts) > 1:
        tuples = all(part[:1] in "([" for part in parts)
        found = [_answer(part) for part in parts] if tuples else _values(parts)
        return "{" + ",".join(sorted(found)) + "}"
    found = _values(parts)
    return found[0] if len(found) == 1 else "{" + ",".join(sorted(found)) + "}"


def _values(parts: Sequence[str]) -> list[str]:
    """The keys of the parts, without their names; a part with `±` has two."""
    found: list[str] = []
    for part in parts:
        part = _NAMED.sub("", part)
        both = [part.replace("±", sign, 1) for sign in "+-"] if "±" in part else [part]
        found += [_one(each.replace("±", "+")) for each in both]
    return list(dict.fromkeys(found))


def _one(part: str) -> str:
    bare = part.strip()
    if not bare:
        raise UnreadableExpression
    if re.fullmatch(r"[-+]?\s*infinity", bare):
        return bare.replace(" ", "").lstrip("+")
    based = re.fullmatch(r"(-?[\dA-F]+)\s*_\s*\{?\s*(\d+|[a-z]+)\s*\}?", bare)
    if based:
        return based[1].lower()
    for sign in ("≤", "≥", "<", ">"):
        if sign in bare:
            sides = [_one(side) for side in bare.split(sign)]
            if sign in ("≥", ">"):
                sides.reverse()
            return ("≤" if sign in "≤≥" else "<").join(sides)
    sides = bare.split("=")
    if len(sides) == 2:
        return _equation(*sides)
    if len(sides) > 2:
        raise UnreadableExpression
    values = _at_points(bare)
    return _key(values)


def _equation(left: str, right: str) -> str:
    """The key of an equation: the difference of its sides up to a factor."""
    sides = [_at_points(left), _at_points(right)]
    if len(sides[0]) == len(sides[1]) == 1:
        return _one(right)
    many = max(map(len, sides))
    one, other = (side * many if len(side) == 1 else side for side in sides)
    difference = [complex(each) - complex(against) for each, against in zip(one, other, strict=True)]
    first = difference[0]
    if abs(first) < 1e-12:
        raise UnreadableExpression
    return "0=" + _key([each / first for each in difference])


def _at_points(text: str) -> list[Value]:
    parser = ExpressionParser(text, 0)
    value = parser.whole()
    if not parser.variables:
        return [value]
    return [ExpressionParser(text, point).whole() for point in range(len(SAMPLE_POINTS))]


def _key(values: Sequence[Value]) -> str:
    return ";".join(_number(value) for value in values)


def _number(value: Value) -> str:
    if isinstance(value, Fraction):
        return (
            _shortened(number_key(value))
            if value.denominator < _MAX_BOTTOM
            else f"~{float(value):.{_DIGITS}g}"
        )
    real, imaginary = value.real, value.imag
    if not (math.isfinite(real) and math.isfinite(imaginary)):
        raise UnreadableExpression
    scale = max(abs(real), abs(imaginary), 1e-300)
    if abs(imaginary) < 1e-10 * scale:
        return _floating(real)
    return f"{_floating(real if abs(real) > 1e-10 * scale else 0.0)}+{_floating(imaginary)}i"


def _shortened(digits: str) -> str:
    """A long whole number as its first digits and its length."""
    return digits if len(digits) <= _MAX_DIGITS else f"{digits[:_MAX_DIGITS]}e{len(digits) - _MAX_DIGITS}"


def _floating(value: float) -> str:
    if abs(value - round(value)) < 1e-10 * max(1.0, abs(value)) and abs(value) < 1e15:
        return str(round(value))
    return f"~{value:.{_DIGITS}g}"


def _split(text: str) -> list[str]:
    """The parts between commas and semicolons outside of brackets."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        if char in "([{⟨":
            depth += 1
        elif char in ")]}⟩":
            depth -= 1
        elif char in ",;" and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part] or [""]


def _closes(text: str) -> int:
    depth = 0
    for at, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if depth == 0:
            return at
    return -1
