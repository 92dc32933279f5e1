"""Reads questions with known answers from a file of JSON lines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, ValidationError

from actors.evaluation.errors import BadDataset
from orchestration.evaluation.forms import (
    AnswerForm,
    extract_answer,
    form_of,
    is_right,
    right_answer,
    with_instruction,
)
from orchestration.validation import first_problem

MAX_BYTES = 64_000_000
MAX_QUESTIONS = 100_000


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """The extracted answer, None if there is none, and its score from 0 to 1."""

    answer: str | None
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetQuestion:
    """One question. `text` is sent unchanged; `judge` scores the whole text of an answer."""

    id: str
    text: str
    right: str
    form: AnswerForm
    judge: Callable[[str], ScoredAnswer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The questions of a file or a task. `name` is for people."""

    name: str
    questions: Sequence[DatasetQuestion]

    @property
    def fingerprint(self) -> str:
        """A hash of the questions and their answers."""
        digest = hashlib.sha256()
        for question in self.questions:
            for part in (question.id, question.text, question.right, question.form):
                digest.update(part.encode() + b"\0")
        return digest.hexdigest()[:16]


class DatasetLine(BaseModel):
    """One question of a file; other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    question: StrictStr = Field(min_length=1)
    answer: StrictStr | StrictInt | StrictFloat
    kind: AnswerForm | None = None
    id: StrictStr | StrictInt | None = None


def read_jsonl(file: Path, limit: int | None = None) -> Dataset:
    """Read the first `limit` questions of a file; empty lines do not count.

    Raises `BadDataset` with the file, the line and the problem.
    """
    questions: dict[str, DatasetQuestion] = {}
    for number, text in _lines(file):
        if limit is not None and len(questions) >= limit:
            break
        if len(questions) >= MAX_QUESTIONS:
            raise BadDataset(f"{file} has more than {MAX_QUESTIONS} questions: limit them with --limit")
        question = _question(file, number, text)
        if question.id in questions:
            raise BadDataset(f"{file}, line {number}: duplicate id {question.id!r}")
        questions[question.id] = question
    if not questions:
        raise BadDataset(f"{file} has no questions")
    return Dataset(name=file.stem, questions=tuple(questions.values()))


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadDataset(f"cannot read {file}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise BadDataset(f"{file} has more than {MAX_BYTES} bytes: split it")
    for number, text in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if text.strip():
            yield number, text


def _question(file: Path, number: int, text: bytes) -> DatasetQuestion:
    try:
        line = DatasetLine.model_validate_json(text)
        form = line.kind or form_of(line.question, line.answer)
        right = right_answer(form, str(line.answer), line.question)
    except ValidationError as error:
        problem = first_problem(error)
        where = "".join(f"{field}: " for field in problem.path[:1])  # deeper names are pydantic's own
        raise BadDataset(f"{file}, line {number}: {where}{problem.message}") from error
    except ValueError as error:
        raise BadDataset(f"{file}, line {number}: answer: {error}") from error
    return DatasetQuestion(
        id=str(line.id) if line.id is not None else f"line {number}",
        text=with_instruction(line.question, form),
        right=right,
        form=form,
        judge=partial(_judge, form, line.question, right),
    )


def _judge(form: AnswerForm, question: str, right: str, text: str) -> ScoredAnswer:
    answer = extract_answer(form, text, question)
    return ScoredAnswer(answer, float(is_right(form, answer, right)))
