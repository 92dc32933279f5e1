"""Multiple choice: the options that a question offers, and which of them an answer takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from orchestration.patterns.consensus.final import exact
from orchestration.patterns.consensus.numbers import whole_number

_MAX_OPTION_CHARS = 300
_MOST = 40
"""Options of one question."""
_QUESTION_CHARS = 16_000
"""Options stand at the end of a question; of a longer one, so much is read."""

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
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
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


@lru_cache(maxsize=256)
def _options(question: str) -> tuple[tuple[str, str], ...]:
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
    """The options by their labels, or by themselves for `yes or no`; empty when there are none."""
    return dict(_options(question))


def _listed(text: str) -> dict[str, str]:
    """One in a line: the last list whose labels go on from the first."""
    lists: list[dict[str, str]] = []
    run: dict[str, str] = {}
    end = 0
    for match in _LINE.finditer(text):
        words = match["words"].strip(" \t*_`")
        if run and match["label"] == _next(list(run)) and _near(text, end, match.start()):
            run[match["label"]] = words[:_MAX_OPTION_CHARS]
        elif _is_first(match["label"]):
            run = {match["label"]: words[:_MAX_OPTION_CHARS]}
            lists.append(run)
        else:
            run = {}
        end = match.end()
    sound = [each for each in lists if len(each) >= 2 and _are_options(each, text)]
    return _upper(max(reversed(sound), key=_rank)) if sound else {}


def _rank(options: Mapping[str, str]) -> int:
    """Letters before numbers, which more often count steps and facts."""
    return not next(iter(options)).isdigit()


def _inline(text: str) -> dict[str, str]:
    """In one line: `(A) red (B) blue`, `A. red, B. blue`."""
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
        label: text[begin:end].split("\n")[0].strip(" ,;\n")[:_MAX_OPTION_CHARS]
        for (label, (_, begin)), end in zip(best.items(), ends, strict=True)
    }
    return _upper(options) if all(options.values()) and _are_options(options, text) else {}


def _headed(text: str) -> dict[str, str]:
    """Without labels, under `Options:` or `Choices:`."""
    for match in reversed([*_HEADING.finditer(text)][-4:]):
        rest = match["rest"].strip()
        words = re.split(r"\s*[,;/|]\s*|\s+or\s+", rest.rstrip(".")) if rest else []
        if not rest:
            block = text[match.end() :].strip("\n").split("\n\n")[0]
            words = [each["words"].strip(" *_`") for each in _BULLET.finditer(block)]
        words = [word for word in words if word]
        if 2 <= len(words) <= _MOST and all(len(word) <= _MAX_OPTION_CHARS for word in words):
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
        roman = _ROMAN[min(count, len(_ROMAN) - 1)]
        return roman if first == "i" else roman.upper()
    if first == "1":
        return str(count + 1)
    return chr(ord(first) + count) if count < 26 else ""


def _near(text: str, end: int, start: int) -> bool:
    """Whether the next option follows the one before, with no more than a wrapped line or two between."""
    return text.count("\n", end, start) <= 4


def _are_options(options: Mapping[str, str], text: str) -> bool:
    """Not several questions, and not what a text counts or a code shows."""
    if sum(words.rstrip().endswith("?") for words in options.values()) * 2 > len(options):
        return False
    if next(iter(options)) in ("A", "a"):
        return True
    return _ASKS.search(text) is not None


def choice_of(text: str, options: Mapping[str, str]) -> str | None:
    """The option that one statement takes; None when that is not clear, as in `A) Mars` where Mars is C."""
    said = _MARKUP.sub(lambda match: match[1] or "", text).strip()
    if not said or not options:
        return None
    if is_torn(said, options):
        return None
    named, clear = _named(said, options)
    if not clear:
        return None
    worded = _worded(said, options)
    if named is None or worded is None:
        return named or worded or _counted(said, options)
    return named if named == worded or not _short(said) else None


def _counted(said: str, options: Mapping[str, str]) -> str | None:
    """By its position: `option 3`, `the third option`."""
    match = _POSITION.search(said)
    if match is None or len(said.split()) > _SHORT_WORDS:
        return None
    at = int(match[1]) if match[1] else _ORDINALS.index(match[2].lower()) + 1
    labels = list(options)
    return labels[at - 1] if 0 < at <= len(labels) and all(map(_is_label, labels)) else None


def is_none(text: str, options: Mapping[str, str]) -> bool:
    """Whether a statement refuses all options."""
    if _NONE.search(text) is None or len(text.split()) > 3 * _SHORT_WORDS:
        return False
    return not any(_NONE.search(words) for words in options.values())


def is_torn(text: str, options: Mapping[str, str]) -> bool:
    """Whether a statement takes two options: `A or B`."""
    pattern = _pattern(tuple(options))
    for one in pattern.finditer(text[:_MAX_OPTION_CHARS]):
        label = _label(one, text, options)
        gap = _OR.match(text, one.end())
        other = pattern.match(text, gap.end()) if gap is not None and label is not None else None
        if other is not None and _label(other, text, options) not in (None, label):
            clause = _CLAUSE.split(text[: one.start()])[-1]
            return _DENIES.search(clause) is None
    return False


def _short(said: str) -> bool:
    return len(said.split()) <= 12


def labels_in(said: str, options: Mapping[str, str], *, bare: bool = True) -> list[str]:
    """The options that a text names by their labels and does not deny, in their order. `bare` labels, without
    brackets, count where they are no words or symbols of a longer text."""
    found: list[str] = []
    begin, short = 0, len(said.split()) <= _SHORT_WORDS
    formula = _FORMULA.search(said) is not None
    for cut in [*(match.span() for match in _CLAUSE.finditer(said)), (len(said), len(said))]:
        clause, begin = said[begin : cut[0]], cut[1]
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
    return len(label) == 1 or label.isdigit() or label.lower() in _ROMAN


def _label(match: re.Match[str], clause: str, options: Mapping[str, str]) -> str | None:
    said = match["inside"] or match["called"] or match["bare"]
    label = next((each for each in options if each == said), None)
    label = label or next((each for each in options if each.casefold() == said.casefold()), None)
    if label is None and "1" in options and said.isupper():  # the third of `1) … 2) … 3) …` is C too
        label = next((each for each in options if each == str(ord(said) - ord("A") + 1)), None)
    if match["bare"] is None or label is None:
        return label
    before, after = clause[: match.start()].strip(" \"'“*:"), clause[match.end() :]
    if said.isdigit():
        return label if not before and re.match(r"\s*(?:[).:]|$)", after) else None
    if said.islower() and len(said) == 1 and label != said:
        return label if not before and re.match(r"\s*(?:[).:]|$)", after) else None
    if said in ("A", "I", "a", "i") or before.endswith(("=", "+", "*", "/", "-", "\\")):
        return label if _AFTER_BARE.match(after) and not before.endswith("=") else None
    return label


def _named(said: str, options: Mapping[str, str]) -> tuple[str | None, bool]:
    """By its label, and whether that is clear: two different ones are not, unless the statement begins with
    one and goes on to speak of others."""
    start = re.match(r"[\W_]*", said)
    begin = start.end() if start else 0
    opening = re.match(r".*?[(\[]?$", said[:begin], re.DOTALL)
    first = max(0, begin - 1) if opening and said[:begin].endswith(("(", "[")) else begin
    match = _pattern(tuple(options)).match(said, first)
    if match is not None:
        rest = said[match.end() :]
        label = _label(match, said, options)
        if match["bare"] is not None and label is not None and not _AFTER_BARE.match(rest):
            label = label if said[match.start()].isupper() and match["bare"] not in ("A", "I") else None
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
    taken = list(dict.fromkeys(labels_in(said, options)))
    if len(taken) == 1:
        return taken[0], True
    return None, len(taken) == 0


@lru_cache(maxsize=1024)
def _exact(words: str) -> str | None:
    return exact(words)


def _worded(said: str, options: Mapping[str, str]) -> str | None:
    """By its words or its value: the only option whose words are in the answer, or the longest that holds the
    others."""
    plain = f" {exact(said) or ''} "
    if plain.strip() in ("yes", "no"):  # `exact` makes one of `Yes, because …`
        return next((label for label, words in options.items() if _exact(words) == plain.strip()), None)
    number = whole_number(said)
    if number is not None:
        same = [label for label, words in options.items() if whole_number(words) == number]
        if same:
            return same[0] if len(same) == 1 else None
    held = {
        label: words
        for label, option in options.items()
        if (words := _exact(option)) is not None
        and f" {words} " in plain
        and not _is_bare_label(words, options)
    }
    longest = max(held.values(), key=len, default="")
    if any(words not in longest for words in held.values()):
        bare = _DENIED_WORDS.sub(" ", said)
        return _worded(bare, options) if bare != said else None
    return next((label for label, words in held.items() if words == longest), None)


def _is_bare_label(words: str, options: Mapping[str, str]) -> bool:
    return len(words) == 1 and words.upper() in options and not words.isdigit()
