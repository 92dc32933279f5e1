"""Questions that `reasoning-gym` makes, as many as are wanted, each with its own scorer."""

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
"""Questions, where nobody says how many."""
MAX_OPTIONS = 6
"""Words that all answers of a task are among, for it to be a choice between them."""
_RUNS_ANSWERS = re.compile(r"(?<!literal_)\b(?:eval|exec|parse_expr|sympify)\(\s*answer\b")
"""sympy's `parse_expr` is an `eval` as well."""
_SENTENCES = re.compile(r"\n|[.!?](?:\s|$)")
"""An answer of several of them, whose form the task tells by itself."""
_SCORER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What scorers raise on answers of a form that they do not expect."""


def make_task(
    name: str, *, size: int | None = None, seed: int = 0, options: Mapping[str, Any] | None = None
) -> Dataset:
    """`size` questions of a task. `options` are fields of its configuration.

    Raises `ExtraMissing`, and `BadDataset` for a task or an option that is not known and for a task whose
    scorer would run what a model answers as Python code.
    """
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError as error:
        raise ExtraMissing.of("eval", f"a reasoning-gym task ({name})", "reasoning-gym") from error
    if name not in DATASETS:
        near = get_close_matches(name, DATASETS, n=5, cutoff=0.4) or sorted(DATASETS)[:8]
        raise BadDataset(
            f"{name!r} is neither a file nor one of {len(DATASETS)} reasoning-gym tasks; near it: "
            f"{', '.join(near)}"
        )
    if _RUNS_ANSWERS.search(inspect.getsource(DATASETS[name][0])):
        raise BadDataset(
            f"task {name}: its scorer runs answers as Python code, and no model is to be trusted so"
        )
    said = {"size": size or DEFAULT_SIZE, "seed": seed} | dict(options or {})
    if not 0 < said["size"] <= MAX_QUESTIONS:
        raise BadDataset(f"{said['size']} questions: 1 to {MAX_QUESTIONS} are made")
    try:
        made = create_dataset(name, **said)
        entries = [made[number] for number in range(said["size"])]
    except (TypeError, ValueError, AssertionError, IndexError, KeyError) as error:
        known = ", ".join(sorted(set(inspect.signature(DATASETS[name][1]).parameters) - {"size", "seed"}))
        raise BadDataset(f"task {name}: {error or type(error).__name__}; its options: {known}") from error
    rights = [str(entry["answer"]) for entry in entries]
    form = AnswerForm.NUMBER if all(whole_number(right) is not None for right in rights) else AnswerForm.EXACT
    few = set(rights) if len(set(rights)) <= MAX_OPTIONS and all(map(str.isalpha, rights)) else set()
    long = form is AnswerForm.EXACT and any(_SENTENCES.search(right) for right in rights)
    questions = [
        DatasetQuestion(
            id=str(number),
            text=entry["question"] if long else with_instruction(entry["question"], form),
            right=right,
            form=form,
            judge=partial(_judge, made, entry, form, long, few),
        )
        for number, (entry, right) in enumerate(zip(entries, rights, strict=True))
    ]
    return Dataset(name=name, questions=questions)


def _judge(
    made: Any, entry: dict[str, Any], form: AnswerForm, long: bool, few: Collection[str], text: str
) -> ScoredAnswer:
    """`few` are the words that all answers of the task are among, such as Yes and No; '"No." it does not' is
    one of them."""
    answer = (
        extract_answer(form, text, entry["question"])
        if form is AnswerForm.NUMBER
        else stated_answer(text, long=long)
    )
    if answer and few:
        answer = find_option(few, answer) or answer
    try:
        score = float(made.score_answer(answer, entry)) if answer else 0.0
    except _SCORER_ERRORS:
        score = 0.0
    return ScoredAnswer(answer or None, min(1.0, max(0.0, score)))
