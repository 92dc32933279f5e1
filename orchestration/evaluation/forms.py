"""Forms of answers: how a question asks for one, how an answer is extracted from a text, and when it is
right.

All patterns are treated alike, so that none gains by how it formats its answers.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum

from orchestration.patterns.consensus import AnswerKind, key_of
from orchestration.patterns.consensus.final import exact, final_answer, final_lines
from orchestration.patterns.consensus.options import options_of


class AnswerForm(StrEnum):
    """How an answer is compared with the right one."""

    EXACT = "exact"
    """Compares texts, ignoring case, articles, punctuation and emphasis."""
    NUMBER = "number"
    """Compares numeric values."""
    CHOICE = "choice"
    """Compares which option of the question is selected."""
    CONTAINS = "contains"
    """The answer is right if it contains the right one as whole words."""
    REGEX = "regex"
    """The answer is right if a regular expression matches in it."""


_KINDS = {
    AnswerForm.EXACT: AnswerKind.EXACT,
    AnswerForm.NUMBER: AnswerKind.NUMBER,
    AnswerForm.CHOICE: AnswerKind.CHOICE,
}
_ENDINGS = {
    AnswerForm.EXACT: "End with: The answer is …",
    AnswerForm.NUMBER: "End with the number: The answer is …",
    AnswerForm.CHOICE: "End with the letter: The answer is …",
}


def kind_of_vote(form: AnswerForm) -> AnswerKind:
    """Return how a vote compares answers of this form."""
    return _KINDS.get(form, AnswerKind.AUTO)


def with_instruction(question: str, form: AnswerForm) -> str:
    """Return the question with an instruction how its answer must end."""
    ending = _ENDINGS.get(form)
    return f"{question.rstrip()}\n\n{ending}" if ending else question


def form_of(question: str, answer: str | float) -> AnswerForm:
    """Guess the form of a question: `NUMBER` for a number, `CHOICE` for the letter of an option, else
    `EXACT`."""
    if not isinstance(answer, str):
        return AnswerForm.NUMBER
    options = options_of(question)
    return (
        AnswerForm.CHOICE
        if answer.strip().upper() in {each.upper() for each in options}
        else AnswerForm.EXACT
    )


def extract_answer(form: AnswerForm, text: str, question: str) -> str | None:
    """Extract the answer from `text`: the content of a box, or what follows the last `the answer is`, else
    the last number, the selected option, or the whole text. None if there is none."""
    if form in (AnswerForm.CONTAINS, AnswerForm.REGEX):
        return text.strip() or None
    return key_of(_KINDS[form], text, question)


def right_answer(form: AnswerForm, answer: str, question: str) -> str:
    """Return the right answer in the form that `is_right` compares. Raises `ValueError` with the reason if
    `answer` has another form."""
    if form is AnswerForm.REGEX:
        try:
            re.compile(answer)
        except re.error as error:
            raise ValueError(f"{answer!r} is not a regular expression: {error}") from error
        return answer
    found = exact(answer) if form is AnswerForm.CONTAINS else extract_answer(form, answer, question)
    if found is None:
        reasons = {
            AnswerForm.NUMBER: "is not a number",
            AnswerForm.CHOICE: "is not one of the options in the question",
        }
        raise ValueError(f"{answer!r} {reasons.get(form, 'is empty')}")
    return found


def is_right(form: AnswerForm, answer: str | None, right: str) -> bool:
    """Whether an answer from `extract_answer` equals the `right` one from `right_answer`."""
    if answer is None:
        return False
    if form is AnswerForm.REGEX:
        return re.search(right, answer) is not None
    if form is AnswerForm.CONTAINS:
        padded = f" {exact(answer) or ''} "
        return f" {right} " in padded or f" {right} " in f" {_plain(answer)} "
    return answer == right


def stated_answer(text: str, *, long: bool = False) -> str:
    """Return what `text` names as its answer, else all of it, for scorers with an own comparison. A `long`
    answer may have several sentences or lines, and extends to the end."""
    return (final_lines(text) if long else final_answer(text)) or text.strip()


def find_option(options: Collection[str], text: str) -> str | None:
    """Return the first of the one-word `options` that `text` contains, in its original spelling."""
    spelt = {option.casefold(): option for option in options}
    words = (spelt.get(word) for word in re.findall(r"\w+", text.casefold()))
    return next((option for option in words if option is not None), None)


def _plain(text: str) -> str:
    """Return the words of a whole text; `exact` would return only what it names as its answer."""
    return " ".join(re.findall(r"[\w.%+/-]*\w", text.casefold()))
