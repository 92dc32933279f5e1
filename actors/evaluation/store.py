"""Stores the results of an evaluation as JSON lines, each written as soon as its question is answered."""

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
    """The first line of the file."""

    spec: dict[str, Any]


class ResultsFile(Generic[R]):
    """The results, on disk and in memory; made by `open_results`. If a question is asked again, its last
    result counts."""

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
        """Write the result. It survives if the process is killed after this returns."""
        self._file.write(result.model_dump_json(exclude_defaults=True).encode() + b"\n")
        self._by_key[result.pattern, result.question] = result


@contextmanager
def open_results(folder: Path, spec: BaseModel, kind: type[R], *, resume: bool) -> Iterator[ResultsFile[R]]:
    """Open the results of a kind in `folder`, which is created if it does not exist. A partial last line of a
    killed process is dropped.

    Raises `OtherResults` if there are results and `resume` is False, if they have another spec or are
    damaged, and if another process writes there; `ResultsStorage` if they cannot be written.
    """
    path = folder / RESULTS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            yield ResultsFile(file, _load_or_begin(path, file, spec, kind, resume=resume))
    except OSError as error:
        raise ResultsStorage(f"cannot write {error.filename or path}: {error.strerror}") from error


def _load_or_begin(path: Path, file: BinaryIO, spec: BaseModel, kind: type[R], *, resume: bool) -> list[R]:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OtherResults(f"another evaluation is writing to {path}") from error
    file.seek(0)
    data = file.read()
    whole = data.rfind(b"\n") + 1
    os.truncate(file.fileno(), whole)
    lines = data[:whole].splitlines()
    if not lines:
        file.write(ResultsHeader(spec=spec.model_dump(mode="json")).model_dump_json().encode() + b"\n")
        return []
    if not resume:
        raise OtherResults(f"{path} has results: continue with --resume, or choose another folder with --out")
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


def _check(path: Path, stored: dict[str, Any], spec: BaseModel) -> None:
    known = spec.model_dump(mode="json")
    for name in sorted(known.keys() | stored.keys()):
        old, new = stored.get(name), known.get(name)
        if old != new:
            raise OtherResults(
                f"{path} has results of another evaluation: its {name} is {old}, here it is {new}"
            )
