"""The options that a multiple-choice question offers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

MAX_OPTION_CHARS = 300
_MAX_OPTIONS = 40
"""Maximum options of one question."""
_QUESTION_CHARS = 16_000
"""Characters of a longer question that are read, from its end, where options stand."""
_LABEL = r"(?P<label>[A-Za-z]|\d{1,2}|[ivxIVX]{1,5})"
_LINE = re.compile(
    rf"^[ \t]*(?:[-•>][ \t]+|"
    rf"\*[ \t]+)?[*_`]{{0,3}}[(\[]?{_LABEL}[*_`]{{0,3}}[).:\]][*_`]{{0,3}}(?P<words>[ \t]+\S.*|[ \t]*\S.*)$",
    re.MULTILINE,
)
_INLINE = re.compile(
    rf"(?:^|(?<=[\s,;:?.]))(?:[(\[]{_LABEL}[)\]]|{_LABEL.replace('label', 'bare')}[).:])[ \t]*(?=\S)",
    re.MULTILINE,
)
_HEADING = re.compile(
    r"^[ \t*_#]*(?:answer\s+)?(?:options|choices|possible\s+answers|alternatives|optionen|auswahl|opciones|"
    r"opzioni|"
    r"opções)[ \t*_]*[:：][ \t*_]*(?P<rest>.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_BULLET = re.compile(r"^[ \t]*[-*•][ \t]+(?P<words>\S.*)$", re.MULTILINE)
_ASKS = re.compile(
    r"\b(?:which|choose|select|pick|options?|choices?|correct|welche[rs]?|quelle?s?|cu[áa]l|quale|qual)\b",
    re.IGNORECASE,
)
_PAIRS = (
    ("yes", "no"),
    ("true", "false"),
    ("ja", "nein"),
    ("oui", "non"),
    ("sí", "no"),
    ("si", "no"),
    ("sim", "não"),
    ("ja", "nee"),
    ("correct", "incorrect"),
    ("valid", "invalid"),
)
ROMAN_NUMERALS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")


@lru_cache(maxsize=256)
def _find_options(question: str) -> tuple[tuple[str, str], ...]:
    text = question[-_QUESTION_CHARS:]
    found = _listed(text) or _inline(text) or _headed(text)
    if found:
        return tuple(found.items())
    for pair in _PAIRS:
        for one, other in (pair, pair[::-1]):
            if re.search(rf"\b{one}['\"”]?\s+(?:or|oder|ou|o|of|/)\s+['\"“]?{other}\b", text, re.IGNORECASE):
                return tuple((each, each) for each in pair)
    return ()


def options_of(question: str) -> dict[str, str]:
    """The options of a question by their labels, or by themselves for `yes or no`; empty when there are
    none."""
    return dict(_find_options(question))


def _listed(text: str) -> dict[str, str]:
    """The options that stand one in a line: the last list whose labels are in sequence from the first."""
    lists: list[dict[str, str]] = []
    run: dict[str, str] = {}
    end = 0
    for match in _LINE.finditer(text):
        words = match["words"].strip(" \t*_`")
        if run and match["label"] == _next(list(run)) and _near(text, end, match.start()):
            run[match["label"]] = words[:MAX_OPTION_CHARS]
        elif _is_first(match["label"]):
            run = {match["label"]: words[:MAX_OPTION_CHARS]}
            lists.append(run)
        else:
            run = {}
        end = match.end()
    sound = [each for each in lists if len(each) >= 2 and _are_options(each, text)]
    return _upper(max(reversed(sound), key=_rank)) if sound else {}


def _rank(options: Mapping[str, str]) -> int:
    """Letters rank before numbers, which more often number steps and facts."""
    return not next(iter(options)).isdigit()


def _inline(text: str) -> dict[str, str]:
    """The options that stand in one line: `(A) red (B) blue`, `A. red, B. blue`."""
    found: dict[str, tuple[int, int]] = {}
    best: dict[str, tuple[int, int]] = {}
    for match in _INLINE.finditer(text):
        label = match["label"] or match["bare"]
        if text[: match.start()].rstrip()[-1:] in set("-+*/=^(&<>"):
            continue
        if found and label == _next(list(found)):
            found[label] = match.span()
        elif _is_first(label):
            found = {label: match.span()}
        if len(found) >= 2 and len(found) >= len(best):
            best = dict(found)
    if not best:
        return {}
    ends = [*(start for start, _ in best.values()), len(text)][1:]
    options = {
        label: text[begin:end].split("\n")[0].strip(" ,;\n")[:MAX_OPTION_CHARS]
        for (label, (_, begin)), end in zip(best.items(), ends, strict=True)
    }
    return _upper(options) if all(options.values()) and _are_options(options, text) else {}


def _headed(text: str) -> dict[str, str]:
    """The options without labels below `Options:` or `Choices:`."""
    for match in reversed([*_HEADING.finditer(text)][-4:]):
        rest = match["rest"].strip()
        words = re.split(r"\s*[,;/|]\s*|\s+or\s+", rest.rstrip(".")) if rest else []
        if not rest:
            block = text[match.end() :].strip("\n").split("\n\n")[0]
            words = [each["words"].strip(" *_`") for each in _BULLET.finditer(block)]
        words = [word for word in words if word]
        if 2 <= len(words) <= _MAX_OPTIONS and all(len(word) <= MAX_OPTION_CHARS for word in words):
            return {word: word for word in words}
    return {}


def _upper(options: Mapping[str, str]) -> dict[str, str]:
    if next(iter(options)) in ("a", "A"):
        return {label.upper(): words for label, words in options.items()}
    return dict(options)


def _is_first(label: str) -> bool:
    return label in ("A", "a", "1", "i", "I")


def _next(labels: Sequence[str]) -> str:
    first, count = labels[0], len(labels)
    if first in ("i", "I"):
        roman = ROMAN_NUMERALS[min(count, len(ROMAN_NUMERALS) - 1)]
        return roman if first == "i" else roman.upper()
    if first == "1":
        return str(count + 1)
    return chr(ord(first) + count) if count < 26 else ""


def _near(text: str, end: int, start: int) -> bool:
    """Whether an option follows the one before with at most a few wrapped lines between."""
    return text.count("\n", end, start) <= 4


def _are_options(options: Mapping[str, str], text: str) -> bool:
    """Whether a list is one of options, and not of questions, counted items or code."""
    if sum(words.rstrip().endswith("?") for words in options.values()) * 2 > len(options):
        return False
    if next(iter(options)) in ("A", "a"):
        return True
    return _ASKS.search(text) is not None
