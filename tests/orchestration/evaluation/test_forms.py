"""What is taken out of an answer, and when it is right."""

from __future__ import annotations

import pytest

from orchestration.evaluation.forms import Form, asked, form_of, is_right, right_answer, taken

PLANETS = "Which planet is the largest? A) Mars B) Jupiter C) Venus"


@pytest.mark.parametrize(
    ("form", "question", "right", "text", "expected"),
    [
        (Form.NUMBER, "?", "5", "2 + 3 = 5", True),
        (Form.NUMBER, "?", "5", "First 7, then 9. The answer is 5. Not 6!", True),
        (Form.NUMBER, "?", "1234.5", "It is \\boxed{1,234.50}", True),
        (Form.NUMBER, "?", "16 - 9 = 7 #### 7", "#### 7", True),
        (Form.NUMBER, "?", "5", "Five or six", False),
        (Form.NUMBER, "?", "5", "I do not know", False),
        (Form.CHOICE, PLANETS, "B", "(B)", True),
        (Form.CHOICE, PLANETS, "B", "The largest is Jupiter.", True),
        (Form.CHOICE, PLANETS, "Jupiter", "B", True),
        (Form.CHOICE, PLANETS, "B", "A) Jupiter", False),
        (Form.EXACT, "?", "The cat", "So the answer is: **cat**.", True),
        (Form.EXACT, "?", "cat", "It is a cat", False),
        (Form.CONTAINS, "?", "Paris", "The capital is PARIS, of course.", True),
        (Form.CONTAINS, "?", "Paris", "Comparison", False),
        (Form.CONTAINS, "?", "Paris", "Paris it is. The answer is France.", True),
        (Form.REGEX, "?", r"\b19[34]5\b", "It ended in 1945.", True),
        (Form.REGEX, "?", r"^1945$", "It ended in 1945.", False),
        (Form.EXACT, "?", "cat", "", False),
    ],
)
def test_an_answer_is_right_when_it_comes_to_the_same(
    form: Form, question: str, right: str, text: str, expected: bool
) -> None:
    assert is_right(form, taken(form, text, question), right_answer(form, right, question)) is expected


@pytest.mark.parametrize(
    ("form", "answer", "reason"),
    [
        (Form.NUMBER, "a few", "is no number"),
        (Form.CHOICE, "D", "is none of the options"),
        (Form.REGEX, "(", "is no regular expression"),
        (Form.EXACT, " … ", "says nothing"),
        (Form.CONTAINS, "", "says nothing"),
    ],
)
def test_an_answer_that_cannot_be_right_is_refused_with_the_reason(
    form: Form, answer: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        right_answer(form, answer, PLANETS)


def test_the_form_follows_from_the_answer_and_the_question_says_how_to_end() -> None:
    assert form_of("?", 5) is Form.NUMBER
    assert form_of(PLANETS, "b") is Form.CHOICE
    assert form_of(PLANETS, "Jupiter") is Form.EXACT
    assert form_of("?", "5") is Form.EXACT
    assert asked("How many?\n", Form.NUMBER).startswith("How many?\n\nEnd with the number")
    assert asked("Why?", Form.CONTAINS) == "Why?"
