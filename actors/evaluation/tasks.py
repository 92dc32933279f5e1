"""Questions from `reasoning-gym` tasks, in any number, each with its own scorer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from actors.evaluation.dataset import MAX_QUESTIONS, Dataset, DatasetQuestion, ScoredAnswer
from actors.evaluation.errors import BadDataset
from actors.installation.optional_imports import ExtraMissing
from orchestration.evaluation.forms import (
    AnswerForm,
    extract_answer,
    find_option,
    stated_answer,
    with_instruction,
)
from orchestration.patterns.consensus.numbers import whole_number

DEFAULT_SIZE = 50
"""Questions per task by default."""
MAX_OPTIONS = 6
"""If all answers of a task are at most this many different words, it is a choice between them."""
_RUNS_ANSWERS = re.compile(r"(?<!literal_)\b(?:eval|exec|parse_expr|sympify)\(\s*answer\b")
"""Finds scorers that run an answer as code; sympy's `parse_expr` is an `eval` too."""
_SENTENCES = re.compile(r"\n|[.!?](?:\s|$)")
"""Finds answers of several sentences or lines, whose form the task itself describes."""
_SCORER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Errors that scorers raise for answers in a form that they do not expect."""


def make_task(
    name: str, *, size: int | None = None, seed: int = 0, options: Mapping[str, Any] | None = None
) -> Dataset:
    """Make `size` questions of a task. `options` are fields of its configuration.

    Raises `ExtraMissing`, and `BadDataset` for an unknown task or option, and for a task whose scorer would
    run the answer of a model as Python code.
    """
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError as error:
        raise ExtraMissing.of(
            "eval", f"{name!r} is not a file, and a reasoning-gym task", "reasoning-gym"
        ) from error
    if name not in DATASETS:
        near = get_close_matches(name, DATASETS, n=5, cutoff=0.4) or sorted(DATASETS)[:8]
        raise BadDataset(
            f"{name!r} is neither a file nor one of {len(DATASETS)} reasoning-gym tasks; near it: "
            f"{', '.join(near)}"
        )
    if _RUNS_ANSWERS.search(inspect.getsource(DATASETS[name][0])):
        raise BadDataset(f"task {name}: its scorer runs answers as Python code, which is not safe")
    config = {"size": size or DEFAULT_SIZE, "seed": seed} | dict(options or {})
    if not 0 < config["size"] <= MAX_QUESTIONS:
        raise BadDataset(f"{config['size']} questions: 1 to {MAX_QUESTIONS} are allowed")
    try:
        task = create_dataset(name, **config)
        entries = [task[number] for number in range(config["size"])]
    except (TypeError, ValueError, AssertionError, IndexError, KeyError) as error:
        known = ", ".join(sorted(set(inspect.signature(DATASETS[name][1]).parameters) - {"size", "seed"}))
        raise BadDataset(f"task {name}: {error or type(error).__name__}; its options: {known}") from error
    answers = [str(entry["answer"]) for entry in entries]
    form = (
        AnswerForm.NUMBER if all(whole_number(right) is not None for right in answers) else AnswerForm.EXACT
    )
    words = set(answers) if len(set(answers)) <= MAX_OPTIONS and all(map(str.isalpha, answers)) else set()
    long = form is AnswerForm.EXACT and any(_SENTENCES.search(right) for right in answers)
    questions = [
        DatasetQuestion(
            id=str(number),
            text=entry["question"] if long else with_instruction(entry["question"], form),
            right=right,
            form=form,
            judge=partial(_judge, task, entry, form, long, words),
        )
        for number, (entry, right) in enumerate(zip(entries, answers, strict=True))
    ]
    return Dataset(name=name, questions=questions)


def _judge(
    task: Any, entry: dict[str, Any], form: AnswerForm, long: bool, words: Collection[str], text: str
) -> ScoredAnswer:
    """Score an answer. `words` are all possible answers of the task, such as Yes and No, so that '"No." it
    does not' is read as No."""
    answer = (
        extract_answer(form, text, entry["question"])
        if form is AnswerForm.NUMBER
        else stated_answer(text, long=long)
    )
    if answer and words:
        answer = find_option(words, answer) or answer
    try:
        score = float(task.score_answer(answer, entry)) if answer else 0.0
    except _SCORER_ERRORS:
        score = 0.0
    return ScoredAnswer(answer or None, min(1.0, max(0.0, score)))
