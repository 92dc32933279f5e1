"""Extracts answers from texts, as Orchestra does or with a scorer file."""

from __future__ import annotations

import hashlib
import importlib.util
import string
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from actors.backends.recorded import BadRecords, RecordedQuestion
from actors.evaluation.errors import BadScorer
from orchestration.evaluation.forms import AnswerForm, extract_answer, form_of, right_answer
from orchestration.patterns.consensus.numbers import whole_number
from orchestration.patterns.consensus.options import options_of


class AnswerScorer(ABC):
    """Reads answers. `name` is for people; `fingerprint` changes with the reading."""

    name: str
    fingerprint: str

    @abstractmethod
    def read(self, record: RecordedQuestion, text: str) -> str | None:
        """Return the answer in `text`, None if there is none."""

    @abstractmethod
    def gold(self, record: RecordedQuestion) -> str:
        """Return the right answer as `read` would. Raises `BadRecords`."""


class ProductScorer(AnswerScorer):
    """Reads as Orchestra does. `form` is used for records that do not name one."""

    name = "own reading"

    def __init__(self, form: AnswerForm | None = None) -> None:
        self._form = form
        self.fingerprint = f"own {form or ''}".strip()

    def form(self, record: RecordedQuestion) -> AnswerForm:
        """Return the form of the record, else that of the command, else a guess from options and the right
        answer."""
        if record.form is not None:
            return AnswerForm(record.form)
        if self._form is not None:
            return self._form
        if record.options:
            return AnswerForm.CHOICE
        gold = str(record.gold)
        if not isinstance(record.gold, str) or whole_number(gold) is not None:
            return AnswerForm.NUMBER
        return form_of(record.question, gold)

    def read(self, record: RecordedQuestion, text: str) -> str | None:
        return extract_answer(self.form(record), text, question_of(record))

    def gold(self, record: RecordedQuestion) -> str:
        form, gold = self.form(record), str(record.gold)
        if form is AnswerForm.CHOICE and gold in record.options:
            gold = string.ascii_uppercase[record.options.index(gold)]
        try:
            return right_answer(form, gold, question_of(record))
        except ValueError as error:
            raise BadRecords(f"record {record.id!r}: gold: {error}; set its form with --form") from error


class FileScorer(AnswerScorer):
    """Reads with the function `read(set, text)` of a Python file, which returns a text or None. The file runs
    in this process, with all its rights."""

    name = "scorer"

    def __init__(self, file: Path, set_name: str) -> None:
        self._read, self._set = _load_reader(file), set_name
        self._file = file
        self.fingerprint = hashlib.sha256(file.read_bytes()).hexdigest()[:16]

    def read(self, record: RecordedQuestion, text: str) -> str | None:
        try:
            answer = self._read(self._set, text)
        except Exception as error:
            raise BadScorer(
                f"{self._file}: read({self._set!r}, …) failed on an answer to {record.id!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if answer is not None and not isinstance(answer, str):
            raise BadScorer(
                f"{self._file}: read(set, text) returned {type(answer).__name__}, not a text or None"
            )
        return answer

    def gold(self, record: RecordedQuestion) -> str:
        return str(record.gold)


def question_of(record: RecordedQuestion) -> str:
    """Return the question, with its options if the text does not list them."""
    text = record.question
    if not record.options or len(options_of(text)) == len(record.options):
        return text
    letters = zip(string.ascii_uppercase, record.options, strict=False)
    return "\n".join([text, *(f"({letter}) {option}" for letter, option in letters)])


def _load_reader(file: Path) -> Callable[[str, str], object]:
    spec = importlib.util.spec_from_file_location("orchestra_scorer", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise BadScorer(f"{file} is not a Python file (--scorer)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadScorer(f"{file} cannot be loaded: {type(error).__name__}: {error}") from error
    read = getattr(module, "read", None)
    if not callable(read):
        raise BadScorer(f"{file} has no function read(set, text)")
    reader: Callable[[str, str], object] = read
    return reader
