"""Checks the sums in a text, such as `12 × 3 + 4 = 36 + 4 = 41`, and corrects wrong results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from orchestration.patterns.arithmetic import NotArithmetic, evaluate, format_number
from orchestration.patterns.consensus.final import final_answer
from orchestration.patterns.consensus.numbers import numbers

MAX_ROUNDS = 16
"""Maximum rounds of corrections that follow from others."""
MAX_SUMS = 32
"""Maximum sums of one text that are checked."""
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(
    rf"(?P<token>{_NUMBER}|[-+−–*×·÷/^()%$€£√]|\bsqrt\b|(?<=[\d)%])[ \t]?[xX](?=[ \t]?[\d($€£])|\bof\b|"
    r"\\(?:times|cdot|div)\b)|(?P<equals>=)|(?P<space>[ \t]+)"
)
_STATED = re.compile(rf"^(?P<before>\s*\**\s*[$€£]?)(?P<number>[-−]?(?:{_NUMBER}))(?P<after>\s*%?\s*\**\s*)$")
_FENCE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_COMPUTES = re.compile(r"[+*×·÷/^√xX%]|sqrt|\\|\bof\b|[\d)%]\s*[-−–]")
_OFF = re.compile(rf"[-+−–]\s*(?:{_NUMBER})\s*%")
"""A percentage that is added or taken off: texts differ in what it is a percentage of."""
_SHARE = re.compile(r"\s*(?:\d+(?:\.\d+)?\s*%|\(?\s*(?P<top>\d+)\s*/\s*(?P<bottom>\d+)\s*\)?)\s*")
"""A percentage or a fraction alone. A text with `40% = 88` or `(1/3) = 22` means that share of something:
half of all corrections of large models' texts were of such places."""
_REMAINDER = re.compile(
    r"\s*,?\s*(?:and |with )?(?:an? |the )?(?:remainder|rem\b|r\b|modulo|mod\b)|\s*\((?:mod|rem)",
    re.IGNORECASE,
)
_BULLET = re.compile(r"(?:^|\n)[ \t]*\Z")
_LABEL = re.compile(
    r"(?:\b(?:step|day|week|month|year|page|question|problem|example|exercise|room|part|chapter|section|case|"
    r"method|option|table|figure|line|no\.|number)|#)[ \t]*\Z",
    re.IGNORECASE,
)
_OF_A_LIST = re.compile(r"[.):][ \t]+\S")
_CLOCK = re.compile(r"\s*(?:o['’]clock|[ap]\.?m\b)|:\d", re.IGNORECASE)
_AROUND = (
    re.compile(r"[-*][ \t]+(?P<sum>.*)"),
    re.compile(r"(?P<stars>\*{1,3})(?P<sum>[^*].*?)(?P=stars)?"),
    re.compile(r"\$\$?[ \t]*(?P<sum>.*[^$ \t])[ \t]*\$\$?"),
    re.compile(r"\((?P<sum>[^()=]*(?:\([^()]*\)[^()=]*)*=.*?)\)?"),
)
"""What may stand around a whole sum: a bullet at the beginning of a line, emphasis, LaTeX's `$…$`, and
`(…)`."""
_LOOSE = Fraction(1, 100)
"""Tolerance of a step of a sum with rounded decimals, relative to its value."""


@dataclass(frozen=True, slots=True)
class Correction:
    """A corrected result: `sum` gives `right`, and the text had `wrong`."""

    sum: str
    wrong: str
    right: str

    def __str__(self) -> str:
        return f"{self.sum} = {self.right}, not {self.wrong}"


def correct_sums(text: str) -> tuple[str, tuple[Correction, ...]]:
    """The text with right results in place of wrong ones, and the corrections. Code, sums with variables and
    unreadable ones stay as they are."""
    parts: list[str] = []
    found: list[Correction] = []
    done = 0
    for start, end in _chains(text):
        put = _checked(text[start:end])
        if put is None:
            continue
        chain, correction = put
        parts += [text[done:start], chain]
        found.append(correction)
        done = end
    return "".join([*parts, text[done:]]), tuple(found)


def count_right_sums(text: str) -> int:
    """The number of sums in the text that are right."""
    chains = [text[start:end] for start, end in _chains(text)]
    return sum(_read(chain) is not None and _checked(chain) is None for chain in chains)


def correct_all_sums(text: str, question: str) -> tuple[str, tuple[Correction, ...], bool]:
    """The corrected text, where a wrong result is also replaced wherever it is repeated and was not in the
    question, and sums that use it are corrected in turn; the corrections; and whether the text's final number
    is right or given."""
    given = set(numbers(question))
    found: list[Correction] = []
    for _ in range(MAX_ROUNDS):
        text, new = correct_sums(text)
        if not new:
            break
        found += new
        for each in new:
            wrong, value = each.wrong.strip("*$€£ "), each.right.strip("$€£ ")
            place = text.find(each.sum)
            if place < 0 or not re.fullmatch(_NUMBER, wrong) or not given.isdisjoint(numbers(wrong)):
                continue
            place += len(each.sum)
            text = text[:place] + _replaced(text[place:], wrong, value)
    return text, tuple(found), not found or ends_in_right_number(text, found, question)


def ends_in_right_number(text: str, corrections: Sequence[Correction], question: str) -> bool:
    """Whether the final number of a text is one of the right results, or a given one."""
    if not corrections or correct_sums(text)[1]:
        return not corrections
    sums = [text[start:end] for start, end in _chains(text)]
    known = {value for each in corrections for value in (*numbers(each.right), *numbers(each.sum))}
    known |= {value for each in sums for value in numbers(each.replace("=", " ; "))}
    stated = numbers(final_answer(text) or text)
    return not stated or stated[-1] in known | set(numbers(question))


def _replaced(text: str, wrong: str, value: str) -> str:
    """The text with `value` for each `wrong` that is a whole number by itself, and a result."""
    again = re.compile(rf"(?<![\w.,]){re.escape(wrong)}(?!\w|[.,]\d)")
    return again.sub(lambda match: match[0] if _names(match) else value, text)


def _names(match: re.Match[str]) -> bool:
    """Whether a number is not a result but a name, such as that of a step, a list entry or a time."""
    text, start, end = match.string, match.start(), match.end()
    before = text[max(0, start - 24) : start]
    is_entry = _BULLET.search(before) is not None and _OF_A_LIST.match(text, end) is not None
    return is_entry or _LABEL.search(before) is not None or _CLOCK.match(text, end) is not None


def _chains(text: str) -> Iterator[tuple[int, int]]:
    """The bounds of runs of numbers, signs and `=` that may be sums."""
    code = [match.span() for match in _FENCE.finditer(text)]
    place, count = 0, 0
    while count < MAX_SUMS:
        start = end = place
        equals = False
        while (match := _TOKEN.match(text, end)) is not None:
            if match.lastgroup == "space" and start == end:
                start = match.end()
            equals = equals or match.lastgroup == "equals"
            end = match.end()
        if end == place:
            after = _TOKEN.search(text, place)
            if after is None:
                return
            place = after.start()
            continue
        place = end
        if equals and not any(begin <= start < stop for begin, stop in code):
            end = start + len(text[start:end].rstrip())
            if not _touched(text, start, end):
                count += 1
                yield _bare(text, start, end)


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """The bounds of a chain without what stands around it."""
    chain = text[start:end].rstrip()
    is_first = _BULLET.search(text[max(0, start - 24) : start]) is not None
    for around in _AROUND if is_first else _AROUND[1:]:
        found = around.fullmatch(chain)
        if found is not None:
            start += found.start("sum")
            chain = found["sum"]
    return start, start + len(chain)


def _touched(text: str, start: int, end: int) -> bool:
    """Whether the text around a sum changes its meaning: names, and divisions with a remainder."""
    before, after = text[:start][-1:], text[end:]
    return before.isalnum() or before in {"_", "."} or after[:1].isalpha() or bool(_REMAINDER.match(after))


def _checked(chain: str) -> tuple[str, Correction] | None:
    """The corrected chain and the correction; None where nothing is wrong, or nothing can be said."""
    read = _read(chain)
    if read is None:
        return None
    head, parts, values = read
    right, near = values[0], values[0]
    for index in range(1, len(parts)):
        stated = _STATED.match(parts[index])
        if stated is None:
            if not _COMPUTES.search(parts[index].strip(" \t*-−–")):
                return None
            if not _close(values[index], near, loose="." in chain):
                return _put(head, parts, index, right)
            near = values[index]
        elif not any(_agrees(stated, value) for value in (right, near)):
            return _put(head, parts, index, right)
    return None


def _read(chain: str) -> tuple[str, list[str], list[Fraction]] | None:
    """The text before the sum, its parts between `=`, and their values; None where it is not a sum."""
    parts = chain.split("=")
    if not parts[0].strip():  # `x = 3 + 4 = 7` begins with a name
        head, parts = parts[0] + "=", parts[1:]
    else:
        head = ""
    if len(parts) < 2 or not _begins(parts[0]) or not _COMPUTES.search(parts[0]):
        return None
    if _OFF.search(chain) or _is_share(parts[0], parts[1]):
        return None
    try:
        return head, parts, [_evaluated(part) for part in parts]
    except NotArithmetic:
        return None


def _is_share(part: str, result: str) -> bool:
    """Whether a part is a percentage alone, or a proper fraction alone with a result that is not a share."""
    share = _SHARE.fullmatch(part)
    if share is None or share["top"] is None:
        return share is not None
    return int(share["top"]) < int(share["bottom"]) and "%" not in result and "." not in result


def _begins(part: str) -> bool:
    """Whether a part is a whole sum: one that begins with an operator has an unreadable operand before it."""
    return part.lstrip()[:1] not in set("+*×·÷/^%)xX-−–") and not part.lstrip().startswith("of")


def _evaluated(part: str) -> Fraction:
    stated = _STATED.match(part)
    return evaluate(stated["number"] if stated else part)


def _put(head: str, parts: list[str], index: int, right: Fraction) -> tuple[str, Correction] | None:
    """The chain up to `index` with the right value there. What follows was computed from the wrong one."""
    wrong = parts[index].strip()
    before = "=".join(parts[:index])
    stated = _STATED.match(parts[index])
    if stated is None:
        stated = _STATED.match(parts[-1])
        if stated is None:
            return None
    value = right
    if "%" in stated["after"]:
        if abs(right) > 1:
            return None  # of a hundred, or of one?
        value = right * 100
    number = _like(value, stated["number"], parts[0])
    lead = re.match(r"\s*", parts[index])
    trail = re.search(r"\s*$", parts[-1])
    assert lead is not None
    assert trail is not None
    result = f"{stated['before'].strip()}{number}{stated['after'].strip()}"
    chain = f"{head}{before}={lead[0]}{result}{trail[0]}"
    return chain, Correction(sum=parts[0].strip(), wrong=wrong, right=result.strip("*"))


def _like(value: Fraction, number: str, first: str) -> str:
    """`value` in the format of the wrong number: as many decimals where it has no end, and groups of
    three."""
    places = max(2, len(number.partition(".")[2]))
    text = format_number(value)
    if len(text.partition(".")[2]) > places:
        scaled = floor(abs(value) * 10**places + Fraction(1, 2))
        text = ("-" if value < 0 else "") + format_number(Fraction(scaled, 10**places))
    if "," in number or "," in first:
        whole, point, decimals = text.partition(".")
        text = f"{int(whole):,}{point}{decimals}"
    return text


def _agrees(stated: re.Match[str], value: Fraction) -> bool:
    """Whether a stated number is `value`, rounded or cut off at its last decimal; whole numbers must be
    exact."""
    number, places = evaluate(stated["number"]), len(stated["number"].partition(".")[2])
    last = Fraction(1, 10**places) if places else Fraction(0)
    return any(
        abs(number - each) <= last / 2 or (number * each >= 0 and 0 < abs(each) - abs(number) < last)
        for each in ([value, value * 100] if "%" in stated["after"] else [value])
    )


def _close(value: Fraction, wanted: Fraction, *, loose: bool) -> bool:
    return value == wanted or (loose and abs(value - wanted) <= _LOOSE * abs(wanted))
