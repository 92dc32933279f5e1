"""How an answer is extracted from a text, and when it is right."""

from __future__ import annotations

import pytest

from orchestration.evaluation.forms import (
    AnswerForm,
    extract_answer,
    form_of,
    is_right,
    right_answer,
    with_instruction,
)

PLANETS = "Which planet is the largest? A) Mars B) Jupiter C) Venus"


@pytest.mark.parametrize(
    ("form", "question", "right", "text", "expected"),
    [
        (AnswerForm.NUMBER, "?", "5", "2 + 3 = 5", True),
        (AnswerForm.NUMBER, "?", "5", "First 7, then 9. The answer is 5. Not 6!", True),
        (AnswerForm.NUMBER, "?", "1234.5", "It is \\boxed{1,234.50}", True),
        (AnswerForm.NUMBER, "?", "16 - 9 = 7 #### 7", "#### 7", True),
        (AnswerForm.NUMBER, "?", "5", "Five or six", False),
        (AnswerForm.NUMBER, "?", "5", "I do not know", False),
        (AnswerForm.CHOICE, PLANETS, "B", "(B)", True),
        (AnswerForm.CHOICE, PLANETS, "B", "The largest is Jupiter.", True),
        (AnswerForm.CHOICE, PLANETS, "Jupiter", "B", True),
        (AnswerForm.CHOICE, PLANETS, "B", "A) Jupiter", False),
        (AnswerForm.EXACT, "?", "The cat", "So the answer is: **cat**.", True),
        (AnswerForm.EXACT, "?", "cat", "It is a cat", False),
        (AnswerForm.CONTAINS, "?", "Paris", "The capital is PARIS, of course.", True),
        (AnswerForm.CONTAINS, "?", "Paris", "Comparison", False),
        (AnswerForm.CONTAINS, "?", "Paris", "Paris it is. The answer is France.", True),
        (AnswerForm.REGEX, "?", r"\b19[34]5\b", "It ended in 1945.", True),
        (AnswerForm.REGEX, "?", r"^1945$", "It ended in 1945.", False),
        (AnswerForm.EXACT, "?", "cat", "", False),
    ],
)
def test_an_answer_is_right_when_it_comes_to_the_same(
    form: AnswerForm, question: str, right: str, text: str, expected: bool
) -> None:
    assert (
        is_right(form, extract_answer(form, text, question), right_answer(form, right, question)) is expected
    )


@pytest.mark.parametrize(
    ("form", "answer", "reason"),
    [
        (AnswerForm.NUMBER, "a few", "is not a number"),
        (AnswerForm.CHOICE, "D", "is not one of the options"),
        (AnswerForm.REGEX, "(", "is not a regular expression"),
        (AnswerForm.EXACT, " … ", "is empty"),
        (AnswerForm.CONTAINS, "", "is empty"),
    ],
)
def test_an_answer_that_cannot_be_right_is_refused_with_the_reason(
    form: AnswerForm, answer: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        right_answer(form, answer, PLANETS)


def test_the_form_follows_from_the_answer_and_the_question_says_how_to_end() -> None:
    assert form_of("?", 5) is AnswerForm.NUMBER
    assert form_of(PLANETS, "b") is AnswerForm.CHOICE
    assert form_of(PLANETS, "Jupiter") is AnswerForm.EXACT
    assert form_of("?", "5") is AnswerForm.EXACT
    assert with_instruction("How many?\n", AnswerForm.NUMBER).startswith("How many?\n\nEnd with the number")
    assert with_instruction("Why?", AnswerForm.CONTAINS) == "Why?"
