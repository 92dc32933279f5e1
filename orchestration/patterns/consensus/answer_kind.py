"""The kinds of answers."""

from __future__ import annotations

from enum import StrEnum


class AnswerKind(StrEnum):
    """`auto` finds it from the question and the answers."""

    AUTO = "auto"
    EXACT = "exact"
    NUMBER = "number"
    MATH = "math"
    CHOICE = "choice"
    CODE = "code"
    TEXT = "text"
