"""The results of an evaluation on disk: JSON lines, each whole as soon as its question is answered."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from actors.evaluation.errors import OtherResults, ResultsStorage
from orchestration.evaluation.result import Result
from orchestration.validation import first_problem

RESULTS = "results.jsonl"
R = TypeVar("R", bound=Result)


class ResultsHeader(BaseModel):
    """The first line."""

    spec: dict[str, Any]


class ResultsFile(Generic[R]):
    """Use `opened`. A question that is answered again, since it failed before, counts as it was last."""

    def __init__(self, file: BinaryIO, known: list[R]) -> None:
        self._file = file
        self._by_key = {(result.pattern, result.question): result for result in known}

    def __len__(self) -> int:
        return len(self._by_key)

    def of(self, patterns: tuple[str, ...]) -> list[R]:
        return [result for result in self._by_key.values() if result.pattern in patterns]

    def is_answered(self, pattern: str, question: str) -> bool:
        result = self._by_key.get((pattern, question))
        return result is not None and result.error is None

    def add(self, result: R) -> None:
        """On disk when it returns, as far as a kill of the process can tell."""
        self._file.write(result.model_dump_json(exclude_defaults=True).encode() + b"\n")
        self._by_key[result.pattern, result.question] = result


@contextmanager
def open_results(folder: Path, spec: BaseModel, kind: type[R], *, resume: bool) -> Iterator[ResultsFile[R]]:
    """The results of a kind in `folder`, which is made where it is not there. A last line that was cut off by
    a kill is dropped.

    Raises `OtherResults` when there are some and `resume` is not said, when they are of another spec, when
    they are damaged, and when another process writes there; `ResultsStorage` when they cannot be written.
    """
    path = folder / RESULTS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            yield ResultsFile(file, _begun(path, file, spec, kind, resume=resume))
    except OSError as error:
        raise ResultsStorage(f"cannot write {error.filename or path}: {error.strerror}") from error


def _begun(path: Path, file: BinaryIO, spec: BaseModel, kind: type[R], *, resume: bool) -> list[R]:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OtherResults(f"another evaluation writes to {path} now") from error
    file.seek(0)
    data = file.read()
    whole = data.rfind(b"\n") + 1
    os.truncate(file.fileno(), whole)
    lines = data[:whole].splitlines()
    if not lines:
        file.write(ResultsHeader(spec=spec.model_dump(mode="json")).model_dump_json().encode() + b"\n")
        return []
    if not resume:
        raise OtherResults(
            f"{path} holds results: go on with them by --resume, or name another folder by --out"
        )
    known: list[R] = []
    for number, line in enumerate(lines, 1):
        try:
            if number == 1:
                _check(path, ResultsHeader.model_validate_json(line).spec, spec)
            else:
                known.append(kind.model_validate_json(line))
        except ValidationError as error:
            raise OtherResults(f"{path}, line {number} is damaged: {first_problem(error)}") from error
    return known


def _check(path: Path, there: dict[str, Any], here: BaseModel) -> None:
    known = here.model_dump(mode="json")
    for name in sorted(known.keys() | there.keys()):
        old, new = there.get(name), known.get(name)
        if old != new:
            raise OtherResults(f"{path} is of another evaluation: its {name} is {old}, and here it is {new}")
