"""Where in a text its final answer is, and one way to write it."""

from __future__ import annotations

import re
import unicodedata

from orchestration.patterns.consensus.numbers import whole_number, written

SHORT_WORDS = 6
"""An answer of at most so many words is compared as it is; a longer one by what it means."""

MAX_MARKERS = 64
"""Markers looked at, from the end: each takes a look at all that follows it."""

_MARKER = re.compile(
    r"(?:\bfinal\s+answer|\b(?:the|my|our|so\s+the|correct)\s+(?:correct\s+)?answer|^[^\w\n]{0,8}answer|####)"
    r"\s*(?:is|=|:|\u2192|->)?\s*:?\s*",
    re.IGNORECASE | re.MULTILINE,
)
_BOXED = "\\boxed{"
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NOT_WORDS = re.compile(r"[^\w\s%+/.-]|(?<!\d)[.](?!\d)|(?<=\d)[.](?!\d)|_")
_YES_NO = re.compile(r"\W*(yes|no|yeah|yep|nope)\b", re.IGNORECASE)
_SAME = {"yeah": "yes", "yep": "yes", "nope": "no"}


def final_answer(text: str) -> str | None:
    """What a text names as its answer: in the last `\\boxed{…}`, else after the last `The answer is`."""
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    rest = _after_marker(text)
    return None if rest is None else _SENTENCE_END.split(rest, maxsplit=1)[0].strip()


def final_lines(text: str) -> str | None:
    """The same for an answer that may be of several sentences or lines: all that follows."""
    return _last_boxed(text) or _after_marker(text)


def exact(text: str) -> str | None:
    """The answer without case, articles, punctuation and emphasis; a number in digits; None for none."""
    said = final_answer(text) or text.strip()
    number = whole_number(said)
    if number is not None:
        return written(number)
    plain = unicodedata.normalize("NFKC", said).casefold()
    yes_no = _YES_NO.match(plain)
    if yes_no:
        return _SAME.get(yes_no[1], yes_no[1])
    plain = " ".join(_ARTICLES.sub(" ", _NOT_WORDS.sub(" ", plain)).split()).strip(" -/+.")
    return plain if any(each.isalnum() for each in plain) else None


def is_short(text: str) -> bool:
    """Whether what a text names as its answer can be compared as it is."""
    return len((final_answer(text) or text).split()) <= SHORT_WORDS


def _after_marker(text: str) -> str | None:
    for match in reversed([*_MARKER.finditer(text)][-MAX_MARKERS:]):
        rest = text[match.end() :].strip()
        if _SENTENCE_END.split(rest, maxsplit=1)[0].strip():
            return rest
    return None


def _last_boxed(text: str) -> str | None:
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth, begin = 1, start + len(_BOXED)
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin:at].strip() or None
    return None
