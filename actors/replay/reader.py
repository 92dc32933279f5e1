"""What an answer says: by the product's own reading, or by a scorer in a file of Python."""

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
    """`name` says which one it is, for people; `fingerprint` changes with what it does."""

    name: str
    fingerprint: str

    @abstractmethod
    def read(self, record: RecordedQuestion, text: str) -> str | None:
        """What `text` answers to the question, None where it gives no answer."""

    @abstractmethod
    def gold(self, record: RecordedQuestion) -> str:
        """The right answer, as `read` would say it. Raises `BadRecords`."""


class ProductScorer(AnswerScorer):
    """Reads as the product does. `form` is how answers compare where a record does not say."""

    name = "own reading"

    def __init__(self, form: AnswerForm | None = None) -> None:
        self._form = form
        self.fingerprint = f"own {form or ''}".strip()

    def form(self, record: RecordedQuestion) -> AnswerForm:
        """As the record says it, else as the command does, else by the options and the right answer."""
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
            raise BadRecords(f"record {record.id!r}: gold: {error}; say its form with --form") from error


class FileScorer(AnswerScorer):
    """Reads with `read(set, text)` of a file of Python, which returns a text or None. The file is run here,
    with all that this process may do."""

    name = "scorer"

    def __init__(self, file: Path, set_name: str) -> None:
        self._read, self._set = _loaded(file), set_name
        self._file = file
        self.fingerprint = hashlib.sha256(file.read_bytes()).hexdigest()[:16]

    def read(self, record: RecordedQuestion, text: str) -> str | None:
        try:
            said = self._read(self._set, text)
        except Exception as error:
            raise BadScorer(
                f"{self._file}: read({self._set!r}, …) failed on an answer to {record.id!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if said is not None and not isinstance(said, str):
            raise BadScorer(f"{self._file}: read(set, text) gave {type(said).__name__}, not a text or None")
        return said

    def gold(self, record: RecordedQuestion) -> str:
        return str(record.gold)


def question_of(record: RecordedQuestion) -> str:
    """The question with its options, where its text does not list them."""
    text = record.question
    if not record.options or len(options_of(text)) == len(record.options):
        return text
    letters = zip(string.ascii_uppercase, record.options, strict=False)
    return "\n".join([text, *(f"({letter}) {option}" for letter, option in letters)])


def _loaded(file: Path) -> Callable[[str, str], object]:
    spec = importlib.util.spec_from_file_location("orchestra_scorer", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise BadScorer(f"{file} is no file of Python (--scorer)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadScorer(f"{file} cannot be loaded: {type(error).__name__}: {error}") from error
    read = getattr(module, "read", None)
    if not callable(read):
        raise BadScorer(f"{file} has no function read(set, text)")
    made: Callable[[str, str], object] = read
    return made
