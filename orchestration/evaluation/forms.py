"""The forms an answer can have: how it is asked for, taken out of a text, and told right from wrong.

The same for whoever answers, so that nobody wins by how the answer is written.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum

from orchestration.patterns.consensus import AnswerKind, key_of
from orchestration.patterns.consensus.final import exact, final_answer, final_lines
from orchestration.patterns.consensus.options import options_of


class AnswerForm(StrEnum):
    """What is compared of an answer."""

    EXACT = "exact"
    """The text, but for case, articles, punctuation and emphasis."""
    NUMBER = "number"
    """Its value."""
    CHOICE = "choice"
    """Which of the options in the question it takes."""
    CONTAINS = "contains"
    """Whether what is right stands somewhere in it, as whole words."""
    REGEX = "regex"
    """Whether an expression is found in it."""


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
    """How a vote compares such answers."""
    return _KINDS.get(form, AnswerKind.AUTO)


def with_instruction(question: str, form: AnswerForm) -> str:
    """The question with what says how its answer has to end."""
    ending = _ENDINGS.get(form)
    return f"{question.rstrip()}\n\n{ending}" if ending else question


def form_of(question: str, answer: str | float) -> AnswerForm:
    """Where nobody says it: a number's is `NUMBER`, that of an option's letter `CHOICE`, else `EXACT`."""
    if not isinstance(answer, str):
        return AnswerForm.NUMBER
    options = options_of(question)
    return (
        AnswerForm.CHOICE
        if answer.strip().upper() in {each.upper() for each in options}
        else AnswerForm.EXACT
    )


def extract_answer(form: AnswerForm, text: str, question: str) -> str | None:
    """The answer that `text` comes to: what it has in a box, or after its last `the answer is`, else its last
    number, the option it takes, or all of it. None where it gives none."""
    if form in (AnswerForm.CONTAINS, AnswerForm.REGEX):
        return text.strip() or None
    return key_of(_KINDS[form], text, question)


def right_answer(form: AnswerForm, answer: str, question: str) -> str:
    """What `is_right` compares with. Raises `ValueError` saying why there is no such answer."""
    if form is AnswerForm.REGEX:
        try:
            re.compile(answer)
        except re.error as error:
            raise ValueError(f"{answer!r} is no regular expression: {error}") from error
        return answer
    found = exact(answer) if form is AnswerForm.CONTAINS else extract_answer(form, answer, question)
    if found is None:
        lacks = {
            AnswerForm.NUMBER: "is no number",
            AnswerForm.CHOICE: "is none of the options in the question",
        }
        raise ValueError(f"{answer!r} {lacks.get(form, 'says nothing')}")
    return found


def is_right(form: AnswerForm, answer: str | None, right: str) -> bool:
    """`answer` is what `taken` gave, `right` what `right_answer` gave."""
    if answer is None:
        return False
    if form is AnswerForm.REGEX:
        return re.search(right, answer) is not None
    if form is AnswerForm.CONTAINS:
        whole = f" {exact(answer) or ''} "
        return f" {right} " in whole or f" {right} " in f" {_plain(answer)} "
    return answer == right


def stated_answer(text: str, *, long: bool = False) -> str:
    """What `text` names as its answer, else all of it: for those who compare by themselves. A `long` answer
    may be of several sentences or lines, and goes on to the end."""
    return (final_lines(text) if long else final_answer(text)) or text.strip()


def find_option(options: Collection[str], text: str) -> str | None:
    """The first of the `options`, each one word, that `text` has, as it is spelt there."""
    spelt = {option.casefold(): option for option in options}
    said = (spelt.get(word) for word in re.findall(r"\w+", text.casefold()))
    return next((option for option in said if option is not None), None)


def _plain(text: str) -> str:
    """The words of a whole text, of which `exact` takes what it names as its answer alone."""
    return " ".join(re.findall(r"[\w.%+/-]*\w", text.casefold()))
