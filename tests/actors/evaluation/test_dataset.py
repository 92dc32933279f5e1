"""Questions from a file and from reasoning-gym, and what is wrong with those that cannot be used."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from actors.evaluation.dataset import read_jsonl
from actors.evaluation.errors import BadDataset
from actors.evaluation.tasks import make_task
from actors.installation.optional_imports import ExtraMissing
from orchestration.evaluation.forms import AnswerForm

GOOD = {"question": "What is 2 + 3?", "answer": 5}


def written(folder: Path, *lines: object) -> Path:
    file = folder / "questions.jsonl"
    file.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines))
    return file


def test_a_file_is_read_up_to_the_limit_and_each_question_judges_its_answers(tmp_path: Path) -> None:
    file = written(
        tmp_path, GOOD, "", {"question": "Who?", "answer": "Ada", "kind": "contains", "id": "x"}, "never read"
    )
    found = read_jsonl(file, 2)
    assert found.name == "questions"
    assert [(each.id, each.form) for each in found.questions] == [
        ("line 1", AnswerForm.NUMBER),
        ("x", AnswerForm.CONTAINS),
    ]
    assert found.questions[0].judge("It is 5.").score == 1
    assert found.questions[0].judge("It is 6.").answer == "6"
    assert found.fingerprint == read_jsonl(file, 2).fingerprint != read_jsonl(file, 1).fingerprint


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "Invalid JSON"),
        ({"question": "?"}, "answer: Field required"),
        ({"answer": "5"}, "question: Field required"),
        ({"question": "", "answer": "5"}, "question: String should have at least 1 character"),
        ({"question": "?", "answer": ["5"]}, "answer: Input should be"),
        ({"question": "?", "answer": True}, "answer: Input should be"),
        ({"question": "?", "answer": "5", "kind": "essay"}, "kind: Input should be 'exact'"),
        ({"question": "?", "answer": "five or so", "kind": "choice"}, "is not one of the options"),
        ({"question": "?", "answer": "(", "kind": "regex"}, "is not a regular expression"),
        ({"question": "?", "answer": "5", "id": 1}, "duplicate id '1'"),
        ("\udcff", "Invalid JSON"),
    ],
)
def test_a_broken_line_is_named_with_its_file_its_number_and_the_reason(
    tmp_path: Path, line: object, reason: str
) -> None:
    file = tmp_path / "questions.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    file.write_bytes(json.dumps(GOOD | {"id": "1"}).encode() + b"\n" + text.encode(errors="surrogateescape"))
    with pytest.raises(BadDataset) as refused:
        read_jsonl(file)
    assert refused.value.message.startswith(f"{file}, line 2: ")
    assert reason in refused.value.message


def test_files_without_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="has no questions"):
        read_jsonl(written(tmp_path, "", ""))
    with pytest.raises(BadDataset, match=r"cannot read .*: No such file"):
        read_jsonl(tmp_path / "missing.jsonl")
    with pytest.raises(BadDataset, match=r"cannot read .*: Is a directory"):
        read_jsonl(tmp_path)


def test_a_task_is_the_same_for_the_same_seed_and_scores_with_its_own_scorer() -> None:
    found = make_task("chain_sum", size=3, seed=7, options={"max_terms": 2, "max_digits": 1})
    assert (
        found.fingerprint
        == make_task("chain_sum", size=3, seed=7, options={"max_terms": 2, "max_digits": 1}).fingerprint
    )
    assert (
        found.fingerprint
        != make_task("chain_sum", size=3, seed=8, options={"max_terms": 2, "max_digits": 1}).fingerprint
    )
    question = found.questions[0]
    assert question.form is AnswerForm.NUMBER
    assert question.judge(f"Well: the answer is {question.right}.").score == 1
    assert question.judge("I do not know").score == 0
    words = make_task("spell_backward", size=1, seed=1).questions[0]
    assert words.form is AnswerForm.EXACT
    assert words.judge(f"The answer is {words.right}").score == 1


@pytest.mark.parametrize(
    "text", ["{}", "The answer is {}.", '"{}."', "{}, it does.\n\nReasoning: 1.", "{upper}"]
)
def test_where_all_answers_are_among_a_few_words_the_first_of_them_counts(text: str) -> None:
    for question in make_task("syllogism", size=20, seed=0).questions:
        wrong = {"Yes": "No", "No": "Yes"}[question.right]
        assert question.judge(text.format(question.right, upper=question.right.upper())).score == 1
        assert question.judge(text.format(wrong, upper=wrong.upper())).score == 0


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("chainsum", {}, "near it: chain_sum"),
        ("chain_sum", {"max_terms": "many"}, "its options: allow_negation, max_digits, max_terms"),
        ("chain_sum", {"terms": 2}, "unexpected keyword argument 'terms'"),
        ("chain_sum", {"size": 0}, "1 to 100000 are allowed"),
        ("countdown", {}, "its scorer runs answers as Python code"),
        ("simple_integration", {}, "its scorer runs answers as Python code"),
    ],
)
def test_a_task_that_cannot_be_had_is_refused_with_the_reason(
    name: str, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(BadDataset, match=reason):
        make_task(name, size=None, options=options)


def test_an_answer_of_several_lines_is_taken_whole() -> None:
    question = make_task("rotate_matrix", size=1).questions[0]
    assert "\n" in question.right
    assert question.judge(question.right).score == 1
    assert question.judge(f"Let me turn it. The answer is\n{question.right}\n").score == 1
    assert question.judge("1 2\n3 4").score < 1


def test_an_answer_that_baffles_the_scorer_is_wrong() -> None:
    question = make_task("prime_factorization", size=1).questions[0]
    assert question.judge("The answer is: two and three").score == 0
    assert question.judge(f"The answer is {question.right}").score == 1


def test_without_the_extra_a_task_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(ExtraMissing, match=r"needs reasoning-gym: pip install 'orchestra-llm\[eval\]'"):
        make_task("chain_sum")
