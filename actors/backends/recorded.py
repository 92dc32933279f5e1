"""Reads recorded answers of models from a file of JSON lines, and finds the one for a conversation.

A line is `{"id", "messages", "gold"?, "options"?, "form"?, "answers": {MODEL: TEXT or [TEXT, …]}, "usage"?}`.

OrchestraError                 status  code                  retryable
├── InvalidRequest
│   └── BadRecords                400  bad_records           no
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from orchestration.errors import InvalidRequest, UnknownModel
from orchestration.validation import first_problem

MAX_BYTES = 512_000_000
"""Maximum size of a file, unpacked."""
MAX_LINE_BYTES = 8_000_000
MAX_RECORDS = 100_000
MAX_MODELS = 256
MAX_SAMPLES = 1_000
"""Maximum answers of one model to one question."""
CHARACTERS = 4
"""Characters per token, where no usage is recorded."""
_GZIP = b"\x1f\x8b"
_WORDS = 4
"""Words of an anchor; this many consecutive words distinguish most questions."""
_PLACES = 16
"""Candidate anchors per question; the rarest is used."""


class BadRecords(InvalidRequest):
    """The file of recorded answers has an invalid record; the message says where and why."""

    code = "bad_records"


class RecordedMessage(BaseModel):
    """One turn of a recorded conversation; `content` is text, or parts of which the texts count, or null."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[StrictStr, BeforeValidator(lambda content: _joined(content))] = ""
    name: StrictStr | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = None
    tool_call_id: StrictStr | None = None


class RecordedUsage(BaseModel):
    """The tokens of one recorded answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt_tokens: StrictInt = Field(default=0, ge=0)
    completion_tokens: StrictInt = Field(default=0, ge=0)


def _joined(content: object) -> object:
    if not isinstance(content, list):
        return "" if content is None else content
    return "".join(
        part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def _several(value: object) -> object:
    """A single text or usage as a list."""
    return value if isinstance(value, list | tuple) else [value]


Texts = Annotated[
    tuple[StrictStr, ...], BeforeValidator(_several), Field(min_length=1, max_length=MAX_SAMPLES)
]
Usages = Annotated[tuple[RecordedUsage, ...], BeforeValidator(_several), Field(max_length=MAX_SAMPLES)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class RecordedQuestion(BaseModel):
    """One question and what each model answered; other fields are ignored.

    `gold` is the right answer, `options` are the texts of a choice, `form` is how answers compare (see
    `orchestration.evaluation.forms.Form`). `usage` has the tokens of each answer in the answers' order.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: StrictStr | StrictInt = ""
    messages: tuple[RecordedMessage, ...] = Field(min_length=1, max_length=1_000)
    gold: StrictStr | StrictInt | StrictFloat | None = None
    options: tuple[StrictStr, ...] = Field(default=(), max_length=26)
    form: Literal["exact", "number", "choice"] | None = None
    answers: dict[Name, Texts] = Field(min_length=1, max_length=MAX_MODELS)
    usage: dict[str, Usages] = {}

    @property
    def question(self) -> str:
        """The last user message, else the last message."""
        questions = [each.content for each in self.messages if each.role == "user"]
        return questions[-1] if questions else self.messages[-1].content

    def tokens(self, model: str, sample: int) -> int:
        """Completion tokens of one answer: as recorded, else one per four characters."""
        spent = self.usage.get(model, ())
        if sample < len(spent) and spent[sample].completion_tokens:
            return spent[sample].completion_tokens
        return text_tokens(self.answers[model][sample])

    def prompt_tokens(self, model: str, sample: int) -> int:
        """Prompt tokens of one answer; 0 if not recorded."""
        spent = self.usage.get(model, ())
        return spent[sample].prompt_tokens if sample < len(spent) else 0


def text_tokens(text: str) -> int:
    """Estimated tokens of a text, at least 1."""
    return max(1, -(-len(text) // CHARACTERS))


def read_records(file: Path) -> tuple[RecordedQuestion, ...]:
    """The records of a file of JSON lines, which may be compressed with gzip. Empty lines are skipped.

    Raises `BadRecords` naming the file, the line and what is wrong with it.
    """
    found: dict[str, RecordedQuestion] = {}
    questions: dict[tuple[str, ...], int] = {}
    for number, line in _lines(file):
        if len(found) >= MAX_RECORDS:
            raise BadRecords(f"{file} has more than {MAX_RECORDS} records: split it")
        record = _record(file, number, line)
        key = str(record.id)
        if key in found:
            raise BadRecords(f"{file}, line {number}: another record has the id {key!r}")
        turns = _turns([(each.role, each.content) for each in record.messages])
        if turns in questions:
            raise BadRecords(f"{file}, line {number}: messages: same question as line {questions[turns]}")
        questions[turns] = number
        found[key] = record
    if not found:
        raise BadRecords(f"{file} holds no record")
    return tuple(found.values())


def _record(file: Path, number: int, line: bytes) -> RecordedQuestion:
    try:
        record = RecordedQuestion.model_validate_json(line.rstrip(b"\r\n"))
    except ValidationError as error:
        problem = _with_character_position(str(first_problem(error)))
        raise BadRecords(f"{file}, line {number}: {problem}") from error
    if not record.question.strip():
        raise BadRecords(f"{file}, line {number}: messages: the last user message is empty")
    return record if record.id != "" else record.model_copy(update={"id": f"line {number}"})


def _with_character_position(message: str) -> str:
    """Pydantic's message with a character position only: its line number is always 1."""
    return re.sub(r" at line \d+ column (\d+)$", r" at character \1", message)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    left = MAX_BYTES
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            with gzip.open(raw) if packed else raw as stream:
                number = 0
                while line := stream.readline(MAX_LINE_BYTES + 1):
                    number += 1
                    left -= len(line)
                    if len(line) > MAX_LINE_BYTES:
                        raise BadRecords(f"{file}, line {number}: more than {MAX_LINE_BYTES} bytes")
                    if left < 0:
                        raise BadRecords(f"{file} has more than {MAX_BYTES} bytes (unpacked): split it")
                    line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                    if line.strip():
                        yield number, line
    except (OSError, EOFError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise BadRecords(f"cannot read {file}: {what}") from error


class QuestionIndex:
    """Finds the record for a conversation; white space is ignored.

    First a record with the same turns. Otherwise, since patterns put questions into other messages, the
    record whose question occurs in a message and of whose turns the most text occurs. Candidates are found by
    anchors (a few consecutive words of each question), so a lookup depends on the length of the conversation,
    not on the number of records.
    """

    def __init__(self, records: Collection[RecordedQuestion]) -> None:
        self.records = records
        self._by_turns = {
            _turns([(each.role, each.content) for each in record.messages]): record for record in records
        }
        self._short: list[tuple[str, RecordedQuestion]] = []
        self._by_anchor: dict[tuple[str, ...], list[tuple[str, RecordedQuestion]]] = {}
        counts = Counter(
            anchor for record in records for anchor in set(_anchors(record.question.split(), _PLACES))
        )
        for record in records:
            words = record.question.split()
            anchors = _anchors(words, _PLACES)
            plain = " ".join(words)
            if anchors:
                rarest = min(anchors, key=lambda anchor: counts[anchor])
                self._by_anchor.setdefault(rarest, []).append((plain, record))
            else:
                self._short.append((plain, record))

    def find(self, messages: Sequence[tuple[str, str]]) -> RecordedQuestion | None:
        """The record for (role, text) pairs, or None."""
        record = self._by_turns.get(_turns(messages))
        if record is not None:
            return record
        texts = [text.split() for _, text in messages]
        whole = "\n".join(" ".join(words) for words in texts)
        held = [pair for pair in self._short if pair[0] in whole]
        for words in texts:
            for at in range(len(words) - _WORDS + 1):
                near = self._by_anchor.get(tuple(words[at : at + _WORDS]), ())
                held += (pair for pair in near if pair[0] in whole)
        if not held:
            return None

        def matched(pair: tuple[str, RecordedQuestion]) -> int:
            turns = _turns([(each.role, each.content) for each in pair[1].messages])
            return sum(len(turn) for turn in turns if turn in whole)

        return max(held, key=matched)[1]


def _turns(messages: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The turns that identify a conversation: all but instructions, which agents extend."""
    turns = tuple(" ".join(text.split()) for role, text in messages if role not in ("system", "developer"))
    return turns or tuple(" ".join(text.split()) for _, text in messages)


def _anchors(words: Sequence[str], max_anchors: int) -> list[tuple[str, ...]]:
    """Runs of words, spread over the question, without its first and last word, which may touch other words
    where it is quoted. Empty for a short question."""
    starts = range(1, len(words) - _WORDS)
    step = max(1, len(starts) // max_anchors)
    return [tuple(words[at : at + _WORDS]) for at in starts[::step]]


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A chunk of a text and its number of tokens."""

    text: str
    tokens: int


def chunks(text: str, tokens: int, size: int) -> list[TextChunk]:
    """A text of `tokens` tokens in chunks of `size` tokens."""
    ends = [min(at, tokens) for at in range(0, tokens + size, size)]
    place = [round(len(text) * end / tokens) for end in ends]
    return [
        TextChunk(text[begin:end], last - first)
        for (first, last), (begin, end) in zip(pairwise(ends), pairwise(place), strict=True)
        if last > first
    ]


def recorded_models(records: Collection[RecordedQuestion], models: Collection[str]) -> tuple[str, ...]:
    """The recorded models, limited to `models` if given. Raises `UnknownModel` for one without records."""
    there = sorted({name for record in records for name in record.answers})
    for name in models:
        if name not in there:
            raise UnknownModel.of(name, there)
    return tuple(models) or tuple(there)
