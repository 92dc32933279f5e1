"""Chooses the reading of a text among the places that name its answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchestration.patterns.consensus.statements import (
    EXPLICIT,
    NEXT_QUESTION,
    SEVERAL,
    WITHDRAWAL,
    Statement,
    withdrawals,
)


@dataclass(frozen=True, slots=True)
class AnswerReading:
    """What a text answers. `key` is the same for equal answers, None where nothing could be read;
    `confidence` is from 0 to 1; `form` names the kind of place that was read."""

    key: str | None
    confidence: float
    form: str


NO_READING = AnswerReading(None, 0.0, "")
Interpret = Callable[[str], str | None]


def best_reading(text: str, found: Sequence[Statement], interpret: Interpret) -> AnswerReading:
    """The reading of the last explicit place, else of the strongest one. Places that the text withdraws, or
    that answer other questions as well, are left out."""
    interpreted = sorted(((each, interpret(each.wording)) for each in found), key=lambda each: each[0].place)
    read = _of_one_row(text, _before_next(text, interpreted))
    if read:
        last = read[-1][0].place
        back = [each for each in withdrawals(text) if each.place >= last]
        corrected = [(each, key) for each in back if (key := interpret(each.wording)) is not None]
        if back:
            read = [(replace(each, strength=0.3 * each.strength), key) for each, key in read]
        read += corrected[-1:]
    if not read:
        return NO_READING
    explicit = [each for each in read if each[0].strength >= EXPLICIT]
    best, key = explicit[-1] if explicit else max(read, key=lambda each: (each[0].strength, each[0].place))
    others = {other for each, other in explicit if other != key}
    return AnswerReading(key, round(best.strength - (0.1 if others else 0.0), 3), best.form)


Interpreted = list[tuple[Statement, str | None]]
Understood = list[tuple[Statement, str]]


def _before_next(text: str, read: Interpreted) -> Interpreted:
    """The readings before the point where a model goes on to ask itself another question."""
    first = next((each for each, key in read if key is not None and each.strength >= EXPLICIT), None)
    if first is None or (after := NEXT_QUESTION.search(text, first.end)) is None:
        return read
    return [each for each in read if each[0].place < after.start()]


def _of_one_row(text: str, interpreted: Interpreted) -> Understood:
    """The readings without rows of differing statements. Such statements, one right after the other, answer
    several questions or are undecided: only the first counts, where it follows from an argument. If nothing
    else is left, it counts with little confidence."""
    sure: Understood = []
    doubtful: Understood = []
    row: Interpreted = []
    for each, key in [*interpreted, (Statement("", len(text), len(text), 0, ""), None)]:
        if row and not _follows_at_once(text, row[-1][0], each):
            read = [(one, its) for one, its in row if its is not None]
            if len({its for _, its in row}) == 1 and not _is_headed(text, row[0][0]):
                sure += read
            else:
                (sure if _is_reasoned(text, row[0][0]) else doubtful).extend(read[:1])
            row = []
        row.append((each, key))
    return sure or [(replace(each, strength=0.4), key) for each, key in doubtful[:1]]


def _follows_at_once(text: str, one: Statement, other: Statement) -> bool:
    if one.form != other.form or one.form not in ("marker", "call"):
        return False
    if (
        one.form == "marker"
        and text[one.place : one.place + 10].casefold() != text[other.place : other.place + 10].casefold()
    ):
        return False
    between = text[one.end : other.place]
    return len(re.findall(r"[^\W\d]{2,}", between)) <= 2 and WITHDRAWAL.search(between) is None


def _is_headed(text: str, statement: Statement) -> bool:
    return (
        statement.form == "marker"
        and SEVERAL.search(text[max(0, statement.place - 90) : statement.place]) is not None
    )


def _is_reasoned(text: str, statement: Statement) -> bool:
    return (
        statement.form == "marker"
        and not _is_headed(text, statement)
        and len(text[max(0, statement.place - 200) : statement.place].split()) >= 8
    )
