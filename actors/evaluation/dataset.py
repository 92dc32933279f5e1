"""Questions with known answers, from a file of JSON lines."""

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
    """What was taken as the answer, None for none, and what it is worth from 0 to 1."""

    answer: str | None
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetQuestion:
    """`text` is asked as it is; `judge` reads the whole text of an answer."""

    id: str
    text: str
    right: str
    form: AnswerForm
    judge: Callable[[str], ScoredAnswer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """`name` is for people."""

    name: str
    questions: Sequence[DatasetQuestion]

    @property
    def fingerprint(self) -> str:
        """The same for the same questions and answers alone."""
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
    """The first `limit` questions of a file; empty lines do not count.

    Raises `BadDataset` naming the file, the line and what is wrong with it.
    """
    found: dict[str, DatasetQuestion] = {}
    for number, text in _lines(file):
        if limit is not None and len(found) >= limit:
            break
        if len(found) >= MAX_QUESTIONS:
            raise BadDataset(f"{file} has more than {MAX_QUESTIONS} questions: ask some with --limit")
        question = _question(file, number, text)
        if question.id in found:
            raise BadDataset(f"{file}, line {number}: another question has the id {question.id!r}")
        found[question.id] = question
    if not found:
        raise BadDataset(f"{file} holds no question")
    return Dataset(name=file.stem, questions=tuple(found.values()))


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
        where = "".join(f"{field}: " for field in problem.path[:1])  # below it are pydantic's own names
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
