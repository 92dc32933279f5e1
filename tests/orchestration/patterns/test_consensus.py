"""The agreement of answers by their kind; much of it for any input."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestration.messages import GuidedDecoding
from orchestration.patterns.consensus import (
    AnswerKind,
    Vote,
    asked_kind,
    clusters,
    count_votes,
    examples_of,
    is_garbage,
    key_of,
    kind_of,
    medoid,
    similarity_matrix,
)
from orchestration.patterns.consensus.choices import choice_of
from orchestration.patterns.consensus.final import exact
from orchestration.patterns.consensus.numbers import format_fraction, numbers
from orchestration.patterns.consensus.options import options_of

PLANETS = "Which planet is the largest?\nA) Mercury\nB) Jupiter\nC) Mars"


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("The answer is 1,234.50 €.", "1234.5"),
        ("1.234,50", "1234.5"),
        ("It costs $1,234.5 in all", "1234.5"),
        ("So we get \\boxed{1234.5}", "1234.5"),
        ("#### 72", "72"),
        ("3/4", "0.75"),
        ("\\frac{3}{4}", "0.75"),
        ("75%", "0.75"),
        ("½", "0.5"),
        ("one and a half is 1 1/2", "1.5"),
        ("1/3", "1/3"),
        ("minus three", "-3"),
        ("\u22123", "-3"),
        ("twenty-one", "21"),
        ("There are one hundred and five of them.", "105"),
        ("2.5 million", "2500000"),
        ("3 + 4 = 7 apples", "7"),
        ("First 3, then 4. The answer is 7, not 8.", "7"),
        ("The answer is 3 + 4 = 7", "7"),
        ("She has 5. He has 6.", "6"),
        ("I do not know.", None),
        ("9" * 5_000, None),
        ("1/0", None),
    ],
)
def test_a_number_is_found_however_it_is_written(answer: str, key: str | None) -> None:
    assert key_of(AnswerKind.NUMBER, answer, "How many?") == key


def test_where_the_question_asks_for_a_percentage_fifty_and_fifty_percent_are_one() -> None:
    question = "What percentage of 10 is 5?"
    assert (
        key_of(AnswerKind.NUMBER, "50", question) == key_of(AnswerKind.NUMBER, "It is 50%.", question) == "50"
    )


@given(st.integers(-(10**9), 10**9), st.integers(0, 4), st.sampled_from(("", "The answer is ", "so x = ")))
def test_any_number_is_read_back_as_it_was_written(whole: int, digits: int, before: str) -> None:
    value = Fraction(whole, 10**digits)
    for text in (format_fraction(value), f"{whole / 10**digits:,.{digits}f}"):
        assert numbers(before + text + ".")[-1] == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The answer is the Paris!", "paris"),
        ("**Paris**", "Paris."),
        ("Seven", "7"),
        ("Yes, it is.", "yes"),
        ("Nope", "No."),
        ("an apple", "The Apple"),
        ("Answer: New  York", "new york"),
        ("\\boxed{x+1}", "x+1"),
    ],
)
def test_exact_answers_agree_whatever_their_case_articles_and_marks(one: str, other: str) -> None:
    assert exact(one) == exact(other) is not None


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(B)", "B"),
        ("b) Jupiter", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is (B) Jupiter, not (A)", "B"),
        ("Jupiter is the largest planet.", "B"),
        ("**B**", "B"),
        ("I think option C is right", "C"),
        ("Mercury and Mars", None),
        ("A) Mars", None),
        ("It is **B**", "B"),
        ("It is A planet", None),
        ("A dog", None),
        ("", None),
    ],
)
def test_an_option_is_taken_by_its_letter_or_its_words(answer: str, letter: str | None) -> None:
    assert choice_of(answer, options_of(PLANETS)) == letter


def test_a_question_shows_its_options() -> None:
    assert options_of(PLANETS) == {"A": "Mercury", "B": "Jupiter", "C": "Mars"}
    assert options_of("Choose: (A) red (B) blue") == {"A": "red", "B": "blue"}
    assert options_of("Is it hot? Answer yes or no.") == {"yes": "yes", "no": "no"}
    assert options_of("See section A. It holds.") == {}
    assert choice_of("No, because it is cold", {"yes": "yes", "no": "no"}) == "no"


def test_programs_that_differ_in_names_and_comments_only_are_one() -> None:
    one = "```python\ndef f(x: int) -> int:\n    '''Adds.'''\n    y = x + 1  # one more\n    return y\n```"
    other = "Here you are:\n```\ndef f(number):\n  total = number+1\n  return total\n```\nDone."
    third = "```python\ndef f(x):\n    return x - 1\n```"
    keys = [key_of(AnswerKind.CODE, text, "Write f") for text in (one, other, third)]
    assert keys[0] == keys[1] != keys[2]
    assert key_of(AnswerKind.CODE, "int f(int x) { return x; } // C", "") == key_of(
        AnswerKind.CODE, "int f(int x){\n return x;\n}", ""
    )


@pytest.mark.parametrize(
    ("text", "examples"),
    [
        (">>> f(2)\n4\n>>> f([1, 2])\n[2, 1]", [("f(2)", "4"), ("f([1, 2])", "[2, 1]")]),
        ("assert f(2) == 4\nassert g('a(b)') == \"x\"", [("f(2)", "4"), ("g('a(b)')", "'x'")]),
        ("So that f(2) -> 4, f(3) -> 9.", [("f(2)", "4"), ("f(3)", "9")]),
        ("`rev('ab')` returns `'ba'`. rev('') should return ''.", [("rev('ab')", "'ba'"), ("rev('')", "''")]),
        ("even(4) => True; even(3) => False", [("even(4)", "True"), ("even(3)", "False")]),
        ("Write add(a, b) that returns their sum", []),
        ("f(2)\n4, then f(__import__('os')) == 1", []),
        ("f(" * 5_000, []),
    ],
)
def test_examples_of_a_program_are_found_in_the_question(text: str, examples: list[tuple[str, str]]) -> None:
    assert [(example.call, example.expected) for example in examples_of(text)] == examples


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What is 3 + 4?", AnswerKind.NUMBER),
        ("How many legs has a spider?", AnswerKind.NUMBER),
        (PLANETS, AnswerKind.CHOICE),
        ("Is water wet, yes or no?", AnswerKind.CHOICE),
        ("Write a Python function that reverses a list.", AnswerKind.CODE),
        ("Why is the sky blue?", AnswerKind.AUTO),
        ("What happened on 2001-09-11?", AnswerKind.AUTO),
    ],
)
def test_a_question_says_what_kind_of_answer_it_wants(question: str, kind: AnswerKind) -> None:
    assert asked_kind(question) is kind


def test_where_the_question_does_not_say_the_answers_do() -> None:
    question = "What is the capital of France?"
    assert kind_of(question, ["Paris", "Lyon."]) is AnswerKind.EXACT
    assert kind_of(question, ["Paris", "It is Paris, which lies on the river Seine."]) is AnswerKind.TEXT
    assert kind_of("Reverse it", ["```\nx\n```", "```\ny\n```"]) is AnswerKind.CODE
    assert kind_of(question, [], GuidedDecoding(regex="a|b")) is AnswerKind.EXACT


def test_an_answer_of_a_fixed_form_counts_when_it_is_whole() -> None:
    guide = GuidedDecoding(json_schema={"type": "object"})
    assert key_of(AnswerKind.EXACT, '{"b": 1, "a": 2}', "", guide) == key_of(
        AnswerKind.EXACT, '{"a":2,"b":1}', "", guide
    )
    assert key_of(AnswerKind.EXACT, '{"b": 1, "a', "", guide) is None


def test_nonsense_is_distinguished_from_answers() -> None:
    assert all(is_garbage(text) for text in ("", " \n", "…!?", "the the of " * 20))
    assert not any(is_garbage(text) for text in ("42", "Paris", "to be or not to be " * 2))


@given(st.text(max_size=200), st.text(max_size=200), st.sampled_from(AnswerKind))
@example("# nothing but a comment", "", AnswerKind.CODE)
@settings(max_examples=150)
def test_any_text_has_a_key_or_none_and_the_same_one_again(
    answer: str, question: str, kind: AnswerKind
) -> None:
    first = key_of(kind, answer, question)
    assert first == key_of(kind, answer, question)
    assert first is None or first != ""
    json.dumps(first)


BEES = ("Bees make honey.", "Honey.", "Bees do not make honey.", "It ended in 1945.", "It ended in 1939.")


def test_a_denial_or_another_number_is_never_similar_and_a_contained_short_answer_is() -> None:
    close = np.ones((5, 1))  # an embedding that sees no difference at all
    alike = similarity_matrix(BEES, close)
    assert alike[0, 1] == 1
    assert alike[0, 2] == alike[1, 2] == alike[3, 4] == 0
    assert (alike == alike.T).all()


def test_long_texts_are_judged_as_a_whole_for_they_have_a_not_and_numbers_somewhere() -> None:
    long = "The sky is blue since air scatters short waves more than long ones, as Rayleigh showed in 1871, "
    texts = (
        long + "and the sea has no part in it.",
        long + "a hundred and fifty years ago, and quite rightly.",
    )
    assert similarity_matrix(texts, np.ones((2, 1)))[0, 1] == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("It was written by Goethe.", "It was written by Schiller.", False),
        ("Goethe wrote it.", "Schiller wrote it.", False),
        ("Marie Curie found it.", "Pierre Curie found it.", False),
        ("It ended in 1945 after 6 years.", "It ended in 1946 after 6 years.", False),
        ("Yes, it is safe.", "No, it is not safe.", False),
        ("Das ist sicher.", "Das ist nicht sicher.", False),
        ("Paris lies on the Seine.", "The Seine flows through Paris.", True),
        ("It took 6 years.", "It took six years in all.", True),
        ("Water boils at 100 degrees.", "At 100 degrees, water boils.", True),
    ],
)
def test_statements_that_differ_in_a_name_a_number_or_a_not_are_never_alike(
    one: str, other: str, same: bool
) -> None:
    assert bool(similarity_matrix((one, other), np.ones((2, 1)))[0, 1] == 1) is same


def test_the_conclusions_of_long_texts_are_compared() -> None:
    long = (
        "Many have asked who made it, and it took a long time until the archives were open to everybody. " * 3
    )
    texts = [
        long + "Therefore, it was made by Rubens.",
        long + "So it was made by Rembrandt.",
        long + "Therefore, it was made by Rubens alone.",
    ]
    alike = similarity_matrix(texts, np.ones((3, 1)))
    assert alike[0, 1] == alike[1, 2] == 0
    assert alike[0, 2] == 1


def test_without_vectors_texts_are_compared_by_their_words() -> None:
    alike = similarity_matrix(
        ("Cats chase small mice at night", "At night small mice flee from cats", "Tea is hot and wet")
    )
    assert alike[0, 1] > 0.5 > alike[0, 2]


def test_complete_linkage_does_not_chain() -> None:
    alike = np.array([[1, 0.9, 0.2], [0.9, 1, 0.85], [0.2, 0.85, 1]])
    assert clusters(alike, 0.8) == [[0, 1], [2]]


def test_where_no_two_texts_agree_the_one_most_like_all_others_leads() -> None:
    alike = np.array([[1, 0.2, 0.6], [0.2, 1, 0.7], [0.6, 0.7, 1]])
    votes = [Vote(voter=number, text="", weight=1) for number in (1, 2, 3)]
    vote_count = count_votes(AnswerKind.TEXT, votes, (), alike, 0.8)
    assert [group.voters for group in vote_count.groups] == [(3,), (2,), (1,)]


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:  # type: ignore[type-arg]
    size = draw(st.integers(1, 7))
    made = np.eye(size)
    for one in range(size):
        for other in range(one):
            made[one, other] = made[other, one] = draw(st.floats(0, 1))
    return made


@given(matrices(), st.floats(0.05, 1))
def test_every_text_is_in_one_cluster_and_all_of_it_are_alike(alike: np.ndarray, threshold: float) -> None:  # type: ignore[type-arg]
    found = clusters(alike, threshold)
    assert sorted(index for group in found for index in group) == list(range(len(alike)))
    for group in found:
        assert alike[np.ix_(group, group)].min() >= min(threshold, 1)
        weights = [1.0] * len(alike)
        best = medoid(group, alike, weights)
        mine = alike[best, group].sum()
        assert all(mine >= alike[each, group].sum() - 1e-6 for each in group)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((0.5, 1.0, 2.0))), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_a_vote_counts_weights_and_the_leader_has_the_most(
    said: list[tuple[str, float]], shuffler: object
) -> None:
    votes = [
        Vote(voter=number, text=key, key=key, weight=weight) for number, (key, weight) in enumerate(said, 1)
    ]
    vote_count = count_votes(
        AnswerKind.EXACT, votes, (), similarity_matrix([vote.text for vote in votes]), 0.8
    )
    assert sum(len(group.voters) for group in vote_count.groups) == len(votes)
    sums = {key: sum(weight for other, weight in said if other == key) for key, _ in said}
    assert vote_count.leader is not None
    assert vote_count.leader.weight == max(sums.values())
    assert vote_count.agreement == pytest.approx(max(sums.values()) / sum(sums.values()))
    assert vote_count.leader.representative in vote_count.leader.voters
