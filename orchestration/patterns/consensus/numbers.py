"""Reads numbers as people and models write them, as exact rationals: `1,234.50 €` and `1234.5` are equal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

_ONES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
WORDS = {word: value for value, word in enumerate((*_ONES, *_TEENS))} | {
    word: 10 * tens for tens, word in enumerate(_TENS, 2)
}
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4} | {
    f"{name}{plural}": value
    for value, name in enumerate(
        ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"), 3
    )
    for plural in ("", "s")
}
_FOREIGN = {
    word: value
    for words in (
        "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
        "zéro un deux trois quatre cinq six sept huit neuf dix onze douze",
        "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce",
        "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici",
        "zero um dois três quatro cinco seis sete oito nove dez onze doze",
        "nul een twee drie vier vijf zes zeven acht negen tien elf twaalf",
    )
    for value, word in enumerate(words.split())
}
SCALES = {"hundred": 100, "dozen": 12, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_MAX_EXPONENT = 30
_MAX_CHARS = 300
"""Maximum characters of one number; a longer one is not read."""

_MARKS = re.compile(
    r"\\[,;:! ()\[\]]|\\left|\\right|\\?[$€£¥₹*`]|\\(?:text|mathrm|mathbf|textbf|boxed)\{([^{}]*)\}"
)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_DIGITS = r"\d(?:[\d.,'\u00a0\u202f]*\d)?"
_SPELLED = "|".join([*WORDS, *SCALES])
_NUMBER = re.compile(
    rf"""(?P<sign>(?<![\w)])[-+]\s?|\bminus\s+)?
    (?:(?P<whole>\d+)\s+(?P<top>\d+)\s*/\s*(?P<bottom>\d+)   # 1 1/2
     |(?P<over>\d+)\s*/\s*(?P<under>\d+)(?!\s*/)                # 3/4
     |(?P<plain>{_DIGITS}|\.\d+)(?:e(?P<power>[-+]?\d+)\b|\s*(?:[x×·]|\\times|\\cdot)\s*10\s*\^\s*\{{?\s*(?P<ten>[-+]?\d+)\}}?)?
     |(?P<words>\b(?:{_SPELLED})(?:(?:\s+and\s+|[\s-])(?:{_SPELLED}))*\b))
    (?:\s*(?P<scale>thousand|million|billion|dozen)\b)?
    (?P<percent>\s*(?:%|\\%|percent\b|per\s+cent\b))?""",
    re.VERBOSE | re.IGNORECASE,
)


_SIGNS = {
    "\u2044": "/",
    "\u2212": "-",
    "\u2013": "-",
    "\u066b": ".",
    "\u066c": ",",
    "\uff0e": ".",
    "\uff0c": ",",
    "\uff05": "%",
    "\u066a": "%",
}


def numbers(text: str, *, percent: bool = False) -> list[Fraction]:
    """The numbers in `text`, in their order. `50%` is one half; with `percent`, for a question that asks for
    a percentage, it is 50."""
    found = []
    for match in _NUMBER.finditer(_cleaned(text)):
        value = _value(match)
        if value is not None:
            found.append(value / 100 if match["percent"] and not percent else value)
    return found


def whole_number(text: str) -> Fraction | None:
    """The number that the whole of `text` is; None where it has anything else."""
    cleaned = _cleaned(text).strip().rstrip(".!")
    match = _NUMBER.fullmatch(cleaned)
    return _value(match) if match is not None and not match["percent"] else None


def whole_percentage(text: str, *, percent: bool = False) -> Fraction | None:
    """The percentage that the whole of `text` is, read as in `numbers`; None where it has anything else."""
    cleaned = _cleaned(text).replace("\\%", "%").strip().rstrip(".!")
    match = _NUMBER.fullmatch(cleaned)
    if match is None or not match["percent"] or (value := _value(match)) is None:
        return None
    return value if percent else value / 100


def in_words(text: str) -> Fraction | None:
    """The value of `two thirds` and `half`, and of the numbers up to twelve in other languages."""
    words = re.findall(r"[^\W\d_]+", text.casefold())
    if len(words) == 1 and words[0] in _FOREIGN:
        return Fraction(_FOREIGN[words[0]])
    if not 1 <= len(words) <= 2 or (part := _PARTS.get(words[-1])) is None:
        return None
    count = 1 if len(words) == 1 or words[0] in ("a", "an") else WORDS.get(words[0])
    return Fraction(count, part) if count is not None else None


def last_number(text: str, *, percent: bool = False) -> Fraction | None:
    """The result of a calculation: the number after the last `=`, else the last number."""
    after = text.rpartition("=")[2]
    found = numbers(after, percent=percent)
    if found and after != text:
        return found[0]
    found = found or numbers(text, percent=percent)
    return found[-1] if found else None


def format_fraction(value: Fraction) -> str:
    """The normal form of a number: `1234.5`, and `1/3` where its decimals do not end."""
    bottom = value.denominator
    for prime in (2, 5):
        while bottom % prime == 0:
            bottom //= prime
    if bottom != 1:
        return str(value)
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    scaled = str(abs(value.numerator) * 10**digits // value.denominator).rjust(digits + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{scaled[: len(scaled) - digits]}.{scaled[-digits:]}" if digits else f"{sign}{scaled}"


_LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_RAISED = re.compile(r"(?<=\d)[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")


def simplified_decimal(value: Fraction) -> Fraction:
    """A simple fraction where `value` is its decimals: 0.333 is 1/3, and 0.6666 is 2/3. Fractions with
    denominators up to 12 differ by more than three decimals blur."""
    places = _places(value)
    if not 3 <= places <= _MAX_EXPONENT:
        return value
    simple = value.limit_denominator(12)
    if _places(simple) >= 0:
        return value
    off, last = abs(simple - value), Fraction(1, 10**places)
    cut_off = places > 3 and abs(value) < abs(simple) and off < last
    return simple if 2 * off <= last or cut_off else value


def number_key(value: Fraction) -> str:
    """The key that a number, and decimals that mean the same simple fraction, share."""
    return format_fraction(simplified_decimal(value))


def in_ascii(text: str) -> str:
    """The text with digits of other scripts, fractions such as `½` and all kinds of minus as ASCII."""
    if text.isascii():
        return text
    return "".join(each if each.isascii() else _ascii(each) for each in text)


def _ascii(char: str) -> str:
    kind = unicodedata.category(char)
    if kind == "Nd":
        return str(unicodedata.decimal(char))
    if kind == "No" and unicodedata.normalize("NFKC", char) != char and char not in "²³¹⁰⁴⁵⁶⁷⁸⁹":
        return f" {unicodedata.normalize('NFKC', char)}".replace("\u2044", "/")
    return _SIGNS.get(char, char)


def _places(value: Fraction) -> int:
    """The number of decimals of `value`; -1 where they do not end."""
    bottom, twos, fives = value.denominator, 0, 0
    while bottom % 2 == 0:
        bottom //= 2
        twos += 1
    while bottom % 5 == 0:
        bottom //= 5
        fives += 1
    return max(twos, fives) if bottom == 1 else -1


def _cleaned(text: str) -> str:
    """The text without LaTeX, currency and emphasis, with `½` as 1/2 and every kind of minus as `-`."""
    spelled = _RAISED.sub(lambda match: "^" + match[0].translate(_LOWERED), in_ascii(text))
    spelled = _LATEX_FRACTION.sub(r" \1/\2 ", spelled)
    return _MARKS.sub(lambda match: match[1] or "", spelled)


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _MAX_CHARS:
        return None
    if match["words"] is not None:
        value = _spelled(re.split(r"[\s-]+", match["words"].lower()))
    elif match["plain"] is not None:
        value = _decimal(match["plain"], int((match["power"] or match["ten"] or "0")[:9]))
    else:
        whole, top, bottom = match["whole"] or 0, match["top"] or match["over"], match["bottom"]
        bottom = bottom or match["under"]
        value = Fraction(int(whole)) + Fraction(int(top), int(bottom)) if int(bottom) else None
    if value is None:
        return None
    if match["scale"]:
        value *= SCALES[match["scale"].lower()]
    return -value if match["sign"] and match["sign"].strip().lower() in ("-", "minus") else value


def _decimal(digits: str, power: int) -> Fraction | None:
    """The value of `1,234.50`, `1.234,50` and `1,5`: the last mark is the decimal one, unless it groups
    thousands."""
    plain = re.sub(r"['\u00a0\u202f]", "", digits)
    marks = [mark for mark in plain if mark in ".,"]
    if abs(power) > _MAX_EXPONENT:
        return None
    if not marks:
        return Fraction(plain) * Fraction(10) ** power
    last = marks[-1]
    head, _, tail = plain.rpartition(last)
    groups = last == "," and len(tail) == 3 and head.replace(",", "").strip("0") != "" and "." not in head
    if groups or marks.count(last) > 1:
        return Fraction(re.sub(r"[.,]", "", plain)) * Fraction(10) ** power
    return Fraction(f"{re.sub(r'[.,]', '', head) or '0'}.{tail}") * Fraction(10) ** power


def _spelled(words: Sequence[str]) -> Fraction | None:
    """The value of spelled words: `one hundred and five` is 105."""
    total, current = 0, 0
    for word in words:
        if word == "and":
            continue
        if word in WORDS:
            current += WORDS[word]
        elif SCALES[word] <= 100:
            current = max(current, 1) * SCALES[word]
        else:
            total, current = total + max(current, 1) * SCALES[word], 0
    return Fraction(total + current)
