"""Texts that can be answers, and texts that copy our prompts, loop, or are clipped."""

from __future__ import annotations

import pytest

from orchestration.messages import ChatMessage
from orchestration.patterns.answer_check import AnswerCheck, is_echo, problem_of
from orchestration.patterns.caller_text import CallerText, is_of_an_example
from orchestration.patterns.clipping import clip
from orchestration.patterns.prompt_texts import (
    LEAP_CRITIQUE,
    NOTES_HEAD,
    REMARKS_HEAD,
    TEA_FINDINGS,
    TEA_TASKS,
    WRITE_FROM_NOTES,
)

SUM = "What is 12 + 30?"
POEM = (
    "Row, row, row your boat,\nGently down the stream,\nMerrily, merrily, merrily, merrily,\n"
    "Life is but a dream.\n\n"
) * 3
TABLE = "| x | x times 7 |\n|---|---|\n" + "".join(f"| {n} | {7 * n} |\n" for n in range(1, 31))
PLAN = "".join(f"Day {n}: run {n + 4} km, then rest.\n" for n in range(1, 15))
CODE = "```python\ngrid = [\n" + "    [0, x, 0, x],\n" * 12 + "]\n```"


def caller(question: str = SUM) -> CallerText:
    return CallerText((ChatMessage(role="user", content=question),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEA_TASKS[2], "our own prompt"),
        (f"The answer: {TEA_TASKS[2].upper()}!", "our own prompt"),
        (TEA_FINDINGS[0], "our own prompt"),
        (LEAP_CRITIQUE["mine"], "our own prompt"),
        (f"42. {WRITE_FROM_NOTES}", "our own prompt"),
        ("The sum is wrong and must be fixed. " * 30, "again and again"),
        ("".join(f"{n}. The sum must be fixed\n" for n in range(1, 31)), "again and again"),
        ("42 " + "ja " * 40, "again and again"),
        ("0 " * 40 + "The sum is wrong. " * 9, "again and again"),
        (f"{SUM} " * 9, "again and again"),
        ("| yes | not on Sundays |\n" * 60, "again and again"),
        ("".join(f"{a}{b} " for a in "abcdefghijkl" for b in "mnopqrstuvwx") * 4, "again and again"),
        (f"It is 42.\n\n**{REMARKS_HEAD}**\n- How do you add", "our own prompt"),
        (f"{NOTES_HEAD}\n42", "our own prompt"),
        ("答案是四十二。" * 12, "again and again"),
        (clip("The sum is forty-two, as anybody can see who has learnt to add. " * 9, 40), "clipped"),
        ("Names the number; is short.", "own notes"),
        ("A good answer: names the number; is short.", "own notes"),
        (" \n", "nothing"),
    ],
)
def test_an_invalid_answer_is_recognised(text: str, said: str) -> None:
    assert said in problem_of(text, caller(), ["A good answer", "names the number", "is short"])


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (SUM, "12 + 30 = 42. The answer is 42."),
        ("Is tea better than coffee if I sleep badly?", " ".join((*TEA_TASKS, *TEA_FINDINGS))),
        ("How long is a leap year?", "A leap year has 366 days, because February has 29."),
        (f"Translate to French: {TEA_TASKS[2]}", f"{TEA_TASKS[2]}: Peser le thé contre le café."),
        ("Say 'I will not talk in class' thirty times.", "I will not talk in class.\n" * 30),
        ("Repeat a short blessing ten times.", "May you be happy and well.\n" * 10),
        ("Écris une phrase douce 20 fois.", "Tu es une étoile dans la nuit.\n" * 20),
        ("Write a nursery rhyme.", POEM),
        (
            "List eight users in JSON.",
            '{"users": [' + '{"name": "", "role": "user", "on": true}, ' * 8 + "]}",
        ),
        ("Show a list in HTML.", "<ul>\n" + "<li>An item of the list</li>\n" * 10 + "</ul>"),
        ("Which of them may enter?", "| a | b |\n|---|---|\n" + "| yes | not on Sundays |\n" * 12),
        ("Write CSV.", "name,role,state\n" + "unknown,user,active\n" * 10),
        ("Write 'hello world' 20x", "hello world " * 30),
        ("Escribe hola cien veces", "hola " * 100),
        ("How many days are in 2024?", "2024 has 366 days, because February has 29."),
        ("Which drinks keep me awake?", "Tea has about half the caffeine of coffee."),
        ("Read it out: " + "Rain on the sea. " * 30, "Rain on the sea. " * 30),
        (f"What does “\n{NOTES_HEAD}\n” mean?", f"{NOTES_HEAD}\nThat is a heading."),
        ("What is the table of seven?", TABLE),
        ("What is the table of seven?", "".join(f"{n} x 7 = {7 * n}\n" for n in range(1, 31))),
        ("Plan my training.", PLAN),
        ("Make a grid.", CODE),
        ("Give 1/3 in decimals, digit by digit.", "0 . " + "3 " * 60),
        ("Why does it say […120 characters left out…]?", "[…120 characters left out…] marks a cut."),
        ("Which is faster, and how do they work?", "Both work at the same time. Those with more are done."),
    ],
)
def test_an_answer_may_say_what_was_asked_for(question: str, text: str) -> None:
    assert problem_of(text, caller(question)) == ""


def test_what_may_become_a_problem_is_known_before_it_is_one_however_the_text_is_cut() -> None:
    for size in (1, 3, 7, 50):
        check, sure = AnswerCheck(caller()), 0
        text = f"It is 42. {TEA_TASKS[2]}."
        for at in range(0, len(text), size):
            check.read(text[at : at + size])
            sure = max(sure, check.sure)
        assert check.end()
        assert text[:sure] in ("It is 42.", "It is 42. ", "")


def test_copies_that_may_be_and_texts_without_spaces_are_given_on_as_they_come() -> None:
    for text in ("3 " * 200, "x" * 2_000):
        check, sure = AnswerCheck(caller()), 0
        for at in range(0, len(text), 4):
            check.read(text[at : at + 4])
            sure = max(sure, check.sure)
        assert check.end() == ""
        assert sure > len(text) / 2


def test_three_times_a_day_asks_for_no_copies() -> None:
    asked = caller("Tell a story: three times a day I eat rice.")
    assert "again and again" in problem_of("I like it very much. " * 20, asked)


def test_a_subtask_of_the_example_is_known_from_one_about_the_question() -> None:
    assert all(is_of_an_example(task, caller()) for task in TEA_TASKS)
    for task in ("Discuss how caffeine affects sleep", f"{TEA_TASKS[2]} and 12 + 30"):
        assert is_of_an_example(task, caller())
    assert not any(is_of_an_example(task, caller("Does coffee harm my sleep?")) for task in TEA_TASKS)
    assert not is_of_an_example("Explain how exercise affects the heart", caller())
    for task in ("add", "Give a clear choice", "Explain what a common year is", "Say why you sleep"):
        assert not is_of_an_example(task, caller())


def test_the_echo_of_a_dry_run_is_known_from_a_model_that_recites_a_prompt() -> None:
    asked = f"Question: {SUM}\n\n{WRITE_FROM_NOTES}"
    assert is_echo(asked, asked)
    assert is_echo(f"{asked} {asked} Question:", asked)
    assert not is_echo(WRITE_FROM_NOTES, asked)
    assert not is_echo(f"{asked} 42", asked)
