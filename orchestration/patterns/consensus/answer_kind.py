"""The kinds of answers."""

from __future__ import annotations

from enum import StrEnum


class AnswerKind(StrEnum):
    """How answers are compared. `auto` chooses the kind by the question and the answers."""

    AUTO = "auto"
    EXACT = "exact"
    NUMBER = "number"
    MATH = "math"
    CHOICE = "choice"
    CODE = "code"
    TEXT = "text"
