"""Finds the final answer in a text, and normalises it."""

from __future__ import annotations

import re
import unicodedata

from orchestration.patterns.consensus.numbers import format_fraction, whole_number
from orchestration.patterns.consensus.statements import NAMED, Statement, statements, window

SHORT_WORDS = 6
"""An answer of at most this many words is compared literally; a longer one by its meaning."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NOT_WORDS = re.compile(r"[^\w\s%+/.:-]|(?<!\d)[.:](?!\d)|(?<=\d)[.:](?!\d)|_")
_YES_NO = re.compile(r"\W*(yes|no|yeah|yep|nope)\b(?!\s+(?:one|more|other|longer))", re.IGNORECASE)
_SAME = {"yeah": "yes", "yep": "yes", "nope": "no"}
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{([^{}]*)\}")


def final_answer(text: str, *, min_strength: float = NAMED) -> str | None:
    """The last answer that the text names with at least the strength `min_strength`: in a JSON field, a box,
    a tag, or after `The answer is`. None where it names none."""
    found = _final(window(text), min_strength)
    return None if found is None else found.wording


def final_lines(text: str) -> str | None:
    """Like `final_answer`, for an answer of several sentences or lines: everything that follows."""
    read = window(text)
    found = _final(read)
    if found is None:
        return None
    return (
        read[found.place :].partition(found.wording)[1] + read[found.end :]
        if found.form == "marker"
        else found.wording
    )


def _final(text: str, min_strength: float = NAMED) -> Statement | None:
    named = [each for each in statements(text) if each.strength >= min_strength]
    return named[-1] if named else None


def exact(text: str) -> str | None:
    """The answer without case, articles, punctuation and emphasis, with numbers in digits; None where nothing
    is left."""
    wording = _WRAPPED.sub(r"\1", final_answer(text) or text.strip())
    number = whole_number(wording)
    if number is not None:
        return format_fraction(number)
    plain = unicodedata.normalize("NFKC", wording).casefold()
    yes_no = _YES_NO.match(plain)
    if yes_no:
        return _SAME.get(yes_no[1], yes_no[1])
    plain = " ".join(_ARTICLES.sub(" ", _NOT_WORDS.sub(" ", plain)).split()).strip(" -/+.:")
    return plain if any(each.isalnum() for each in plain) else None


def is_short(text: str) -> bool:
    """Whether the final answer of a text is short enough to be compared literally."""
    return len((final_answer(text) or text).split()) <= SHORT_WORDS
