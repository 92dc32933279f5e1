"""Reading answers in the forms in which models write them; much of it for any input."""

from __future__ import annotations

import json
from fractions import Fraction
from string import ascii_uppercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.messages import GuidedDecoding
from orchestration.patterns.consensus import AnswerKind, asked_kind, is_garbage, key_of, kind_of, read_answer
from orchestration.patterns.consensus.expressions import math_key
from orchestration.patterns.consensus.options import options_of
from orchestration.patterns.consensus.reading import SURE_CONFIDENCE
from orchestration.patterns.consensus.value_reading import value_key

TEN = "Which gas?\nOptions:\n" + "\n".join(
    f"({letter}) {word}"
    for letter, word in zip(
        "ABCDEFGHIJ",
        (
            "argon",
            "boron gas",
            "chlorine",
            "helium",
            "neon",
            "oxygen",
            "ozone",
            "radon",
            "xenon",
            "iodine vapour",
        ),
        strict=True,
    )
)
JSON_PROMPT = (
    "{}\n\nPresent your reasoning and solution in the following json format.\n\n"
    '```json\n{{\n    "reasoning": "___",\n    "answer": "___"\n}}\n```\n'
)
SHEEP = "A farmer has 3 sheep of 40 kg and 2 of 55 kg. What are their combined weights?"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(I)", "I"),
        ("I", "I"),
        ("The answer is (I).", "I"),
        ("The answer is I.", "I"),
        ("Therefore, the correct option is **J**.", "J"),
        ("**Answer:** C", "C"),
        ("Answer: C. chlorine", "C"),
        ("Final Answer:\n\nC. chlorine", "C"),
        ('Action: Answer("C")', "C"),
        ("Thought: it reacts.\nAction: Answer('c')", "C"),
        ("<answer>C</answer>", "C"),
        ("<answer>\nC) chlorine\n</answer>", "C"),
        ('{"reasoning": "It is not A. It reacts.", "answer": "C"}', "C"),
        ('```json\n{"reasoning": "It is green", "answer": "(C) chlorine"}\n```', "C"),
        ("{'reasoning': 'green', 'answer': 'C'}", "C"),
        ('{"reasoning": "two\nlines", "final_answer": {"choice": "C"}}', "C"),
        ('{"reasoning": "cut off \\frac{1}{2}", "answer": "C', "C"),
        ("\\boxed{\\text{C}}", "C"),
        ("So $\\boxed{C}$.", "C"),
        ("$\\boxed{\\textbf{(C)}}$", "C"),
        ("C is correct, since it is green.", "C"),
        ("It reacts, so C is the correct answer.", "C"),
        ("Option A is inert. Option C is right.", "C"),
        ("It can't be (A) or (B); it's (C).", "C"),
        ("The answer is not (A) but (C).", "C"),
        ("I would choose C rather than D.", "C"),
        ("I first thought (A), but it is (C).", "C"),
        ("The answer is (A). Wait, no: it is (C).", "C"),
        ("The answer is A. Correction: the answer is C.", "C"),
        ("Die Antwort ist C.", "C"),
        ("Die richtige Antwort lautet (C).", "C"),
        ("La bonne réponse est C.", "C"),
        ("La réponse correcte est (C).", "C"),
        ("La respuesta correcta es la C.", "C"),
        ("La risposta corretta è C.", "C"),
        ("A resposta correta é C.", "C"),
        ("Het juiste antwoord is C.", "C"),
        ("答案是C。", "C"),
        ("Ответ: C", "C"),
        ("It is chlorine.", "C"),
        ("Chlorine", "C"),
        ("#### C", "C"),
        ("The closest option is (C).", "C"),
        ("A is inert and B is a solid. So the best answer would be option C.", "C"),
        ("C) chlorine\n\nBecause it is green, unlike (A).", "C"),
        ("We look at each.\n(A) is wrong.\n(B) is a solid.\nThe answer is (C).\n\nThe answer is (C).", "C"),
        ("The answer is (C).\n\nQuestion: Which metal?\nThe answer is (B).", "C"),
        ("Option 3", "C"),
        ("It's the third option.", "C"),
        ("(A) is inert. I am between (B) and (C), and choose (C).", "C"),
        ("A: wrong. B: wrong. C: right. D: wrong.", "C"),
        ("The answer is C. Explanation: (A) is inert, (B) is not a gas.", "C"),
        ("C\n\nReason: A is inert.", "C"),
        ("The gas is chlorine, not argon.", "C"),
        ("<think>Perhaps A. The answer is A.</think>C", "C"),
        ("정답은 C입니다", "C"),
        ("正解はCです", "C"),
        ("The answer is a combination of options A, B, and D.", None),
        ("The answer is (A) or (B).", None),
        ("Either A or B.", None),
        ("The answer is none of the above.", None),
        ('Answer("None of the Above")', None),
        ("I cannot say which gas that is.", None),
        ("It costs 3.5 × 10^5 A", None),
        ("", None),
    ],
)
def test_the_option_that_an_answer_takes_is_read_in_every_form(answer: str, letter: str | None) -> None:
    assert key_of(AnswerKind.CHOICE, answer, TEN) == letter


@pytest.mark.parametrize(
    ("question", "options"),
    [
        (TEN, list("ABCDEFGHIJ")),
        (
            "Pick one:\n" + "\n".join(f"{letter}. word{letter}" for letter in ascii_uppercase),
            list(ascii_uppercase),
        ),
        ("Which one?\na) red\nb) blue\nc) green", ["A", "B", "C"]),
        ("Which one?\n1) red\n2) blue\n3) green", ["1", "2", "3"]),
        ("Which is right?\n(i) red\n(ii) blue\n(iii) green\n(iv) grey", ["i", "ii", "iii", "iv"]),
        ("Which one?\n**A.** red\n**B.** blue", ["A", "B"]),
        ("Which one?\n- A: red\n- B: blue", ["A", "B"]),
        ("Which one? A. red B. blue C. green", ["A", "B", "C"]),
        ("Choices:\n  A: 15\n  B: 24\n  C: 25", ["A", "B", "C"]),
        ("What colour?\nOptions:\n- red\n- blue", ["red", "blue"]),
        ("What colour? \nOptions: red, blue or green", ["red", "blue", "green"]),
        ("Ist das wahr, ja oder nein?", ["ja", "nein"]),
        ("a) What is x? \nb) What is y?", []),
        ("Bake it so:\n1. Mix.\n2. Heat.\nHow long does it take?", []),
        ("Simplify \\frac{a}{(b - a)(c - a)} + \\frac{b}{(a - b)(c - b)}", []),
        ("See section A. It holds.", []),
    ],
)
def test_options_are_found_however_a_question_lists_them(question: str, options: list[str]) -> None:
    assert list(options_of(question)) == options


def test_an_option_is_known_by_its_value_and_by_its_position() -> None:
    numbers = "How many?\nChoices:\n A: 15\n B: 24\n C: 1,000"
    assert key_of(AnswerKind.CHOICE, "The answer is 24.", numbers) == "B"
    assert key_of(AnswerKind.CHOICE, '{"answer": 1000}', numbers) == "C"
    assert key_of(AnswerKind.CHOICE, "The answer is 7.", numbers) is None
    digits = "Which one?\n1) red\n2) blue\n3) green"
    assert key_of(AnswerKind.CHOICE, "The answer is (2).", digits) == "2"
    assert key_of(AnswerKind.CHOICE, 'Answer("C")', digits) == "3"


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ('{"reasoning": "6 poles of 4", "answer": "76"}', "76"),
        ('```json\n{"reasoning": "x", "answer": "$8,400"}\n```', "8400"),
        ('{"reasoning": "two\nlines and \\( 3 \\)", "answer": "48 grams"}', "48"),
        ('{"reasoning": "it is \\frac{1}{2}", "answer": "\\frac{3}{4}"}', "0.75"),
        ('{"reasoning": "it is \\\\frac{1}{2}", "answer": "\\\\frac{3}{4}"}', "0.75"),
        ('{"answer": 76}</s></s></s>', "76"),
        ('Here: {"answer": "12"} and then {"answer": "15"}', "15"),
        ("{'answer': 15}", "15"),
        ("<answer>15</answer>", "15"),
        ("He has 3, she has 4.\nA: 7", "7"),
        ("Therefore:\n\\[\n\\boxed{76}\n\\]", "76"),
        ("The answer is:\n\\[ 3 + 4 = 7 \\]", "7"),
        ("The answer is 12. Wait, no: 15", "15"),
        ("The answer is 12. Correction: 15.", "15"),
        ("\\boxed{12}\n\nSorry, I made an error. It is 15.", "15"),
        ("Die Antwort ist 1.234,5.", "1234.5"),
        ("La réponse finale est 12 500.", "12500"),
        ("La respuesta es 15.", "15"),
        ("La risposta è 15.", "15"),
        ("A resposta final é 15.", "15"),
        ("Het antwoord is 15.", "15"),
        ("答案是15。", "15"),
        ("The answer is ١٥.", "15"),
        ("The answer is １５.", "15"),
        ("$1,234.50", "1234.5"),
        ("1'234.50 CHF", "1234.5"),
        ("1 234 567", "1234567"),
        ("12,34,567", "1234567"),
        ("0.333", "1/3"),
        ("0.6667", "2/3"),
        ("\\frac13", "1/3"),
        ("1.5e3", "1500"),
        ("1.1 \\times 10^6", "1100000"),
        ("10^6", "1000000"),
        ("3:30", "3:30"),
        ("3:30 PM", "15:30"),
        ("6:4", "3:2"),
        ("240g", "240"),
        ("5 cm", "5"),
        ("5\\text{ cm}^2", "5"),
        ("90^\\circ", "90"),
        ("x = 5", "5"),
        ("2\\sqrt{2}", "~2.82842712"),
        ("\\sqrt{8}", "~2.82842712"),
        ("3\\frac{1}{2}", "3.5"),
        ("221_3", "221"),
        ("It costs $40 in all for 3 days.", "40"),
        ("half", "0.5"),
        ("two-thirds", "2/3"),
        ("12,5 %", "0.125"),
        ("3.0 × 10⁵", "300000"),
        ("$3k", "3000"),
        ("5 m^2", "5"),
        ("Die Antwort ist drei.", "3"),
        ("The ratio is 2:4.", "1:2"),
        ("<think>It is 12. The answer is 12.</think>15", "15"),
        ("2^{-200}", "~6.22301528e-61"),
        ("10^{266}", "1" + "0" * 39 + "e227"),
        ("The answer cannot be determined from the 3 numbers given.", None),
        ("I do not know.", None),
    ],
)
def test_the_value_that_an_answer_comes_to_is_read_in_every_form(answer: str, key: str | None) -> None:
    assert key_of(AnswerKind.NUMBER, answer, "How many?") == key


@pytest.mark.parametrize(
    "same",
    [
        ("x^2+2x+1", "(x+1)^2", "1 + 2x + x^2", "(x + 1)(x + 1)"),
        ("\\frac{\\sqrt{2}}{2}", "1/\\sqrt{2}", "sqrt(2)/2", "√2/2"),
        ("\\{1, 2\\}", "2, 1", "x = 1 or x = 2", "1 and 2"),
        ("(-\\infty, 3] \\cup [5, \\infty)", "[5,∞) ∪ (-∞,3]"),
        ("\\pm 2", "2, -2", "x = ±2"),
        ("(1, \\frac{1}{2})", "(1, 0.5)", "\\left( 1, \\dfrac{1}{2} \\right)"),
        ("y = 2x + 3", "2x+3"),
        ("2x - y + 3 = 0", "y - 2x = 3"),
        ("\\frac{\\pi}{4}", "pi/4", "0.25\\pi"),
        ("2 + 3i", "3i+2"),
        ("x > 3", "3 < x"),
        ("\\log_2 8", "3"),
        ("\\binom{5}{2}", "10", "5!/(3!2!)"),
        ("50\\%", "\\frac{1}{2}"),
    ],
)
def test_equal_formulas_have_one_key(same: tuple[str, ...]) -> None:
    assert len({math_key(each) for each in same}) == 1
    assert math_key(same[0]) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x^2+1", "x^2-1"),
        ("x+y", "xy"),
        ("(1, 2)", "(2, 1)"),
        ("[0, 1)", "[0, 1]"),
        ("(1, 2)", "\\{1, 2\\}"),
        ("x > 3", "x < 3"),
        ("\\sqrt{2}", "1.414"),
        ("2i", "2"),
        ("3:2", "2:3"),
    ],
)
def test_different_formulas_have_different_keys(one: str, other: str) -> None:
    assert value_key(one) != value_key(other)


@pytest.mark.parametrize(
    ("question", "answers", "kind"),
    [
        (
            SHEEP,
            ["3·40 + 2·55 = 230 kg.", "120 + 110. So they weigh 230 kg together.", "230"],
            AnswerKind.NUMBER,
        ),
        (
            JSON_PROMPT.format(SHEEP),
            ['{"reasoning": "sum", "answer": "230"}', '{"answer": 230}'],
            AnswerKind.NUMBER,
        ),
        (
            JSON_PROMPT.format("Who won?"),
            ['{"answer": "Ann"}', '{"reasoning": "x", "answer": "Ann."}'],
            AnswerKind.EXACT,
        ),
        ("Factor it.", ["\\boxed{(x+1)^2}", "So it is $\\boxed{(1+x)^2}$"], AnswerKind.MATH),
        (TEN, ["(C)", "It is chlorine."], AnswerKind.CHOICE),
        ("Write a function f in Python.", ["```python\ndef f(): pass\n```"], AnswerKind.CODE),
        ("Who wrote it?", ["```\nx\n```", "```\ny\n```"], AnswerKind.CODE),
        (
            "Describe the war in 30 words; it had 2 sides.",
            ["It was long. It ended in 1945.", "Bad. Over in 1945."],
            AnswerKind.TEXT,
        ),
        (
            "Why is the sky blue?",
            ["Since air scatters short waves much more than long ones.", "Air scatters blue light."],
            AnswerKind.TEXT,
        ),
        ("How many legs?", ["I cannot help with that.", "Eight legs.", "8"], AnswerKind.NUMBER),
        (
            "Explain the war. How long did it last?",
            [
                "It began in 1939, with Poland. It lasted until 1945.",
                "The war lasted 6 years, from 1939 to 1945.",
            ],
            AnswerKind.TEXT,
        ),
        (
            "Explain your reasoning. How many legs have two cats?",
            [
                "Each has 4, so it is 8 legs.",
                "Two cats have 8 legs together, I think.",
                "A cat has 4, 2 have 8.",
            ],
            AnswerKind.NUMBER,
        ),
        (
            "How do I fix it?",
            ["Restart it at once. One solution is to wait.", "The best option is a new one, I think."],
            AnswerKind.TEXT,
        ),
        ("Capital of France?", ["The answer is Paris.", "\\boxed{Paris}"], AnswerKind.EXACT),
    ],
)
def test_what_answers_end_in_goes_before_words_of_the_question(
    question: str, answers: list[str], kind: AnswerKind
) -> None:
    assert kind_of(question, answers) is kind


def test_a_json_skeleton_in_the_question_does_not_ask_for_a_program() -> None:
    assert asked_kind(JSON_PROMPT.format("How many legs has a spider?")) is AnswerKind.NUMBER
    assert asked_kind(JSON_PROMPT.format("Who is it?")) is AnswerKind.AUTO
    assert asked_kind("What does this do?\n```python\nprint(1)\n```") is AnswerKind.CODE


def test_json_answers_are_the_same_where_their_answer_fields_are() -> None:
    one, other = '{"reasoning": "3 + 4", "answer": "7"}', '{"reasoning": "four and three", "answer": 7}'
    guide = GuidedDecoding(json_schema={"type": "object"})
    assert key_of(AnswerKind.EXACT, one, "", guide) == key_of(AnswerKind.EXACT, other, "", guide) == "7"
    assert key_of(AnswerKind.EXACT, one, "") == key_of(AnswerKind.EXACT, other, "") == "7"
    plain = '{"b": 1, "a": 2}'
    assert (
        key_of(AnswerKind.EXACT, plain, "")
        == key_of(AnswerKind.EXACT, '{"a": 2,\n "b": 1}', "")
        == '{"a": 2, "b": 1}'
    )


def test_what_is_read_without_a_place_that_says_so_is_less_sure() -> None:
    sure = read_answer(AnswerKind.CHOICE, "The answer is (C).", TEN)
    taken_back = read_answer(AnswerKind.CHOICE, "The answer is (C). Wait, that is not sure.", TEN)
    guess = read_answer(AnswerKind.CHOICE, "We have $V = C \\cdot F$ and then", TEN)
    row = read_answer(AnswerKind.CHOICE, "The answer is (C).\nThe answer is (D).\nThe answer is (A).", TEN)
    assert sure.confidence > SURE_CONFIDENCE > max(taken_back.confidence, guess.confidence, row.confidence)
    assert key_of(AnswerKind.CHOICE, "We have $V = C \\cdot F$ and then", TEN) is None


def test_long_right_solutions_are_no_garbage_and_loops_are() -> None:
    solution = "\n".join(f"Step {n}: we add {n} to x and get x = {n * (n + 1) // 2}." for n in range(1, 90))
    assert not is_garbage(f"{solution}\nThe answer is 4005.")
    assert is_garbage("It is so. " + "and then we go on and on " * 60)
    looping = "The answer is 12. " + "So it is. " * 200
    assert key_of(AnswerKind.NUMBER, looping, "How many?") == "12"
    assert key_of(AnswerKind.NUMBER, "We add 3. " + "so that x = 7 and " * 60, "How many?") is None


@pytest.mark.parametrize(
    "hostile",
    [
        "{" * 1_000_000,
        '{"answer":' * 100_000,
        "\\boxed{" * 150_000,
        "The answer is " * 70_000,
        "<answer>" * 120_000,
        "(" * 1_000_000,
        "9" * 1_000_000,
        "1 " * 500_000,
        "a " * 500_000,
        "\\frac" * 200_000,
        "9^9^9^9^9^9^9^9",
        "\\boxed{" + "(" * 250 + "}",
        "((((10!)!)!)!)",
        "answer" * 150_000,
        "**" * 500_000,
        "=" * 1_000_000,
        "</s>" * 250_000,
        "wait, " * 150_000,
        "\n" * 1_000_000,
        "A) " * 300_000,
        "1,000," * 150_000,
        "not (A) or " * 100_000,
        '"answer": "' * 100_000,
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.timeout(20)
def test_a_hostile_answer_is_read_at_once(hostile: str) -> None:
    for kind in (AnswerKind.NUMBER, AnswerKind.MATH, AnswerKind.CHOICE, AnswerKind.EXACT):
        read_answer(kind, hostile, TEN)
    kind_of(hostile, [hostile, hostile])
    is_garbage(hostile)


@given(
    st.sampled_from("ABCDEFGHIJ"),
    st.sampled_from(
        (
            "({})",
            "The answer is ({}).",
            "**{}**",
            'Answer("{}")',
            "<answer>{}</answer>",
            '{{"answer": "{}"}}',
            "\\boxed{{{}}}",
            "({}) is correct.",
        )
    ),
    st.sampled_from(("", "Let us think.\n\n", "It is not (B), and (D) is wrong. ")),
)
def test_every_option_is_read_in_every_form(letter: str, form: str, before: str) -> None:
    assert key_of(AnswerKind.CHOICE, before + form.format(letter), TEN) == letter


@given(
    st.integers(-(10**6), 10**6),
    st.integers(0, 2),
    st.sampled_from(
        (
            "{}",
            "The answer is {}.",
            "\\boxed{{{}}}",
            '{{"reasoning": "2 + 2", "answer": "{}"}}',
            "#### {}",
            "${}$",
            "<answer>{}</answer>",
            "x = {}",
        )
    ),
)
def test_every_number_is_read_in_every_form(whole: int, digits: int, form: str) -> None:
    value = Fraction(whole, 10**digits)
    for text in (f"{whole / 10**digits:.{digits}f}", f"{whole / 10**digits:,.{digits}f}"):
        key = key_of(AnswerKind.NUMBER, form.format(text), "How many?")
        assert key is not None
        assert Fraction(key) == value


@given(st.text(max_size=200), st.text(max_size=200), st.sampled_from(AnswerKind))
@settings(max_examples=300)
def test_anything_is_read_and_told_again_the_same(answer: str, question: str, kind: AnswerKind) -> None:
    found = read_answer(kind, answer, question)
    assert found == read_answer(kind, answer, question)
    assert 0 <= found.confidence <= 1
    assert (found.key is None) == (found.confidence == 0)
    json.dumps(found.key)


@given(
    st.recursive(
        st.sampled_from(("x", "y", "2", "3", "\\pi")),
        lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
            lambda each: f"({each[0]}{each[1]}{each[2]})"
        ),
        max_leaves=6,
    )
)
def test_a_formula_is_the_same_in_brackets_and_with_nothing_added(formula: str) -> None:
    assert math_key(formula) == math_key(f"({formula})+0") == math_key(f"1*{formula}")
