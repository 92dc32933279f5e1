"""Finds the option of a multiple-choice question that a statement takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from orchestration.patterns.consensus.final import exact
from orchestration.patterns.consensus.numbers import whole_number
from orchestration.patterns.consensus.options import MAX_OPTION_CHARS, ROMAN_NUMERALS

_DENIES = re.compile(
    r"\b(?:not|isn['’]?t|aren['’]?t|can['’]?t|cannot|can ?not|neither|nor|never|rather than|instead of|"
    r"ruled? out|"
    r"eliminat\w+|exclud\w+|unlike|except|nicht|weder|kein\w*|pas|ni|no es|non è|não|niet|geen|first thought|"
    r"initially|originally|at first|thought it was|had thought)\b",
    re.IGNORECASE,
)
_WRONG = re.compile(
    r"^[\s\"”*).:]*(?:wrong|incorrect|false|no)\b|^[\s\"”*).:]*(?:[^.;:,(\n]{0,40}?\b)?(?:is|are|was|were|"
    r"seems?|would be|ist|est|es|è|é|can be|"
    r"could be)\b[^.;,(\n]{0,16}?"
    r"\b(?:incorrect|wrong|false|not|too|unrelated|irrelevant|ruled out|eliminated|excluded|impossible|"
    r"unlikely|implausible|invalid|falsch|fausse?|incorrecta?|errat[ao]|sbagliat[ao])\b|"
    r"^[\s\"”*)]*(?:isn|doesn|can['’]?t|cannot|does not|do not|did not)",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"(?<!\b[A-Za-z\d])\.(?=\s|$)|[;,\n](?=\s|$)|\b(?:but|sondern|mais|sino|pero|bensì|mas|maar)\b|(?<=\d)\s(?=\Z)",
    re.IGNORECASE,
)
_EITHER = re.compile(r"^\W{0,3}\s*(?:or|and|and/or|oder|und|ou|et|o|y|e|of|en|&|/|,)\W{1,3}$", re.IGNORECASE)
_AFTER_BARE = re.compile(
    r"^(?:\W*$|\s*[).:,;*\]\"”–—-]|\s+(?:because|since|as|for|which|with|is|was|and|or|seems|due|here|weil|"
    r"car|porque|"
    r"perché|\())",
    re.IGNORECASE,
)
_STANDS = re.compile(
    r"(?:\b(?:is|be|are|ist|est|es|è|é|choose|select|pick|with|for|to)|:)[\s\"'“*]*$", re.IGNORECASE
)
_OR = re.compile(r"\W{0,3}(?:\s*,\s*(?:and |or )?|\s+(?:or|and|oder|und|ou|et|o|y|e|of|en)\s+)(?=\W?\w)")
_SHORT_WORDS = 8
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_POSITION = re.compile(
    rf"\b(?:option|choice)\s*#?(\d{{1,2}})\b|\b({'|'.join(_ORDINALS)})\s+(?:option|choice|one|answer)\b",
    re.IGNORECASE,
)
_DENIED_WORDS = re.compile(
    r"(?:,|\band\b|\(|^)?\s*\b(?:not|rather than|instead of|unlike)\b[^.;,\n]*", re.IGNORECASE
)
_FORMULA = re.compile(r"[\\^=_]|\d\s*[*/·×+]|[*/·×+]\s*\d|[A-Za-z]/[A-Za-z]")
_NONE = re.compile(
    r"\bnone of (?:the|these|those)\b|\bnone\W*$|\bno(?:t| correct)? (?:any of|among|in|listed|answer|"
    r"option|provided)\b|"
    r"\bnot (?:listed|provided|available|given|in the (?:choices|options))\b|\bcannot be determined\b|"
    r"\bkeine der\b|"
    r"\baucune des\b|\bninguna de\b|\bnessuna delle\b|\bnenhuma das\b|\bgeen van\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"\\(?:text|textbf|mathrm|mathbf|mathit|boxed|operatorname)\s*\{([^{}]*)\}|\*\*|__|`|\$|\\[()\[\]]"
)


def choice_of(text: str, options: Mapping[str, str]) -> str | None:
    """The option that one statement takes; None when that is unclear, as in `A) Mars` where Mars is C."""
    wording = _MARKUP.sub(lambda match: match[1] or "", text).strip()
    if not wording or not options:
        return None
    if is_torn(wording, options):
        return None
    named, clear = _named(wording, options)
    if not clear:
        return None
    worded = _worded(wording, options)
    if named is None or worded is None:
        return named or worded or _counted(wording, options)
    return named if named == worded or not _short(wording) else None


def _counted(wording: str, options: Mapping[str, str]) -> str | None:
    """The option that a statement names by its position: `option 3`, `the third option`."""
    match = _POSITION.search(wording)
    if match is None or len(wording.split()) > _SHORT_WORDS:
        return None
    at = int(match[1]) if match[1] else _ORDINALS.index(match[2].lower()) + 1
    labels = list(options)
    return labels[at - 1] if 0 < at <= len(labels) and all(map(_is_label, labels)) else None


def is_none(text: str, options: Mapping[str, str]) -> bool:
    """Whether a statement rejects all options."""
    if _NONE.search(text) is None or len(text.split()) > 3 * _SHORT_WORDS:
        return False
    return not any(_NONE.search(words) for words in options.values())


def is_torn(text: str, options: Mapping[str, str]) -> bool:
    """Whether a statement takes two options: `A or B`."""
    pattern = _pattern(tuple(options))
    for one in pattern.finditer(text[:MAX_OPTION_CHARS]):
        label = _label(one, text, options)
        gap = _OR.match(text, one.end())
        other = pattern.match(text, gap.end()) if gap is not None and label is not None else None
        if other is not None and _label(other, text, options) not in (None, label):
            clause = _CLAUSE.split(text[: one.start()])[-1]
            return _DENIES.search(clause) is None
    return False


def _short(wording: str) -> bool:
    return len(wording.split()) <= 12


def labels_in(wording: str, options: Mapping[str, str], *, bare: bool = True) -> list[str]:
    """The options that a text names by their labels and does not deny, in their order. `bare` labels, without
    brackets, count where they are not words or symbols of a longer text."""
    found: list[str] = []
    begin, short = 0, len(wording.split()) <= _SHORT_WORDS
    formula = _FORMULA.search(wording) is not None
    for cut in [*(match.span() for match in _CLAUSE.finditer(wording)), (len(wording), len(wording))]:
        clause, begin = wording[begin : cut[0]], cut[1]
        denied = _DENIES.search(clause)
        for match in _pattern(tuple(options)).finditer(clause):
            label = _label(match, clause, options)
            if label is None or (denied is not None and denied.start() < match.start()):
                continue
            if match["bare"] and not (
                bare and not formula and (short or _STANDS.search(clause[: match.start()]))
            ):
                continue
            if _WRONG.match(clause[match.end() :]) is None:
                found.append(label)
    return found


@lru_cache(maxsize=128)
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    some = "|".join(sorted((re.escape(label) for label in labels if _is_label(label)), key=len, reverse=True))
    if "1" in labels:
        some += "|" + "|".join(chr(ord("A") + at) for at in range(min(26, len(labels))))
    some = some or r"(?!)"
    return re.compile(
        rf"[(\[](?P<inside>{some})[)\]]|"
        rf"\b(?:option|choice|letter|answer|number|statement|Option|Antwort|opci[óo]n|opzione|opção|"
        rf"lettre)s?\s+[\"'“(]?(?P<called>{some})\b|"
        rf"(?<![A-Za-zÀ-ɏ\d_'’.^\\-])(?P<bare>{some})(?![A-Za-zÀ-ɏ\d'’^_-])",
        re.IGNORECASE,
    )


def _is_label(label: str) -> bool:
    return len(label) == 1 or label.isdigit() or label.lower() in ROMAN_NUMERALS


def _label(match: re.Match[str], clause: str, options: Mapping[str, str]) -> str | None:
    wording = match["inside"] or match["called"] or match["bare"]
    label = next((each for each in options if each == wording), None)
    label = label or next((each for each in options if each.casefold() == wording.casefold()), None)
    if label is None and "1" in options and wording.isupper():  # the third of `1) … 2) … 3) …` is C too
        label = next((each for each in options if each == str(ord(wording) - ord("A") + 1)), None)
    if match["bare"] is None or label is None:
        return label
    before, after = clause[: match.start()].strip(" \"'“*:"), clause[match.end() :]
    if wording.isdigit():
        return label if not before and re.match(r"\s*(?:[).:]|$)", after) else None
    if wording.islower() and len(wording) == 1 and label != wording:
        return label if not before and re.match(r"\s*(?:[).:]|$)", after) else None
    if wording in ("A", "I", "a", "i") or before.endswith(("=", "+", "*", "/", "-", "\\")):
        return label if _AFTER_BARE.match(after) and not before.endswith("=") else None
    return label


def _named(wording: str, options: Mapping[str, str]) -> tuple[str | None, bool]:
    """The option that a statement names by its label, and whether that is clear: two different labels are
    not, unless the statement begins with one and then discusses others."""
    start = re.match(r"[\W_]*", wording)
    begin = start.end() if start else 0
    opening = re.match(r".*?[(\[]?$", wording[:begin], re.DOTALL)
    first = max(0, begin - 1) if opening and wording[:begin].endswith(("(", "[")) else begin
    match = _pattern(tuple(options)).match(wording, first)
    if match is not None:
        rest = wording[match.end() :]
        label = _label(match, wording, options)
        if match["bare"] is not None and label is not None and not _AFTER_BARE.match(rest):
            label = label if wording[match.start()].isupper() and match["bare"] not in ("A", "I") else None
        if label is not None:
            other = _pattern(tuple(options)).search(rest)
            if (
                other is not None
                and _EITHER.match(rest[: other.start()] + " ")
                and _label(other, rest, options)
            ):
                return (label, True) if _label(other, rest, options) == label else (None, False)
            if _WRONG.match(rest) is None:
                return label, True
    labels = list(dict.fromkeys(labels_in(wording, options)))
    if len(labels) == 1:
        return labels[0], True
    return None, len(labels) == 0


@lru_cache(maxsize=1024)
def _exact(words: str) -> str | None:
    return exact(words)


def _worded(wording: str, options: Mapping[str, str]) -> str | None:
    """The option that a statement names by its words or value: the only option whose words it has, or the
    longest that includes the others."""
    plain = f" {exact(wording) or ''} "
    if plain.strip() in ("yes", "no"):  # `exact` makes one of `Yes, because …`
        return next((label for label, words in options.items() if _exact(words) == plain.strip()), None)
    number = whole_number(wording)
    if number is not None:
        same = [label for label, words in options.items() if whole_number(words) == number]
        if same:
            return same[0] if len(same) == 1 else None
    matching = {
        label: words
        for label, option in options.items()
        if (words := _exact(option)) is not None
        and f" {words} " in plain
        and not _is_bare_label(words, options)
    }
    longest = max(matching.values(), key=len, default="")
    if any(words not in longest for words in matching.values()):
        bare = _DENIED_WORDS.sub(" ", wording)
        return _worded(bare, options) if bare != wording else None
    return next((label for label, words in matching.items() if words == longest), None)


def _is_bare_label(words: str, options: Mapping[str, str]) -> bool:
    return len(words) == 1 and words.upper() in options and not words.isdigit()
