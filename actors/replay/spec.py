"""The specification of a replay; results of the same specification can be compared."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from actors.backends.recorded import BadRecords, RecordedQuestion, read_records, recorded_models

SUFFIXES = (".jsonl", ".jsonl.gz")
MAX_LISTED_SETS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSet:
    """The questions of a set that have a right answer and an answer of every member. `left_out` counts the
    others."""

    name: str
    file: Path
    models: tuple[str, ...]
    records: tuple[RecordedQuestion, ...]
    left_out: int

    @classmethod
    def read(cls, file: Path, models: Sequence[str], limit: int | None) -> RecordedSet:
        """Raises `BadRecords` and `UnknownModel`."""
        found = read_records(file)
        panel = recorded_models(found, models)
        usable = [each for each in found if each.gold is not None and set(panel) <= each.answers.keys()]
        if not usable:
            golden = sum(each.gold is not None for each in found)
            raise BadRecords(
                f"{file}: {golden} of {len(found)} questions have a gold answer, and none of those an answer "
                f"of each of {', '.join(panel)}: name models with --models"
            )
        records = tuple(usable[:limit])
        return cls(
            name=set_name(file), file=file, models=panel, records=records, left_out=len(found) - len(usable)
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the questions, right answers and recorded texts."""
        digest = hashlib.sha256()
        for record in self.records:
            answers = {model: record.answers[model] for model in self.models}
            digest.update(repr((record.id, record.question, record.gold, answers)).encode())
        return digest.hexdigest()[:16]


def set_files(place: Path, name: str | None) -> list[Path]:
    """Return the files of sets: `place` itself, or `<place>/<name>.jsonl[.gz]`; without a name all in the
    folder.

    Raises `BadRecords` with the names of those that exist.
    """
    if place.is_file():
        if name is not None:
            raise BadRecords(f"{place} is a file with one set: omit {name!r}")
        return [place]
    if not place.is_dir():
        raise BadRecords(f"{place} is neither a folder nor a file of recorded answers (--replay)")
    there = {set_name(each): each for each in sorted(place.iterdir()) if each.name.endswith(SUFFIXES)}
    if name is None and there:
        return list(there.values())
    if name in there:
        return [there[name]]
    names = ", ".join(list(there)[:MAX_LISTED_SETS]) or "no SET.jsonl and no SET.jsonl.gz"
    wanted = "no set of recorded answers" if name is None else f"no {name}.jsonl or {name}.jsonl.gz"
    raise BadRecords(f"{place} has {wanted}; found: {names}")


def set_name(file: Path) -> str:
    """Return the name of a set, as commands and scorers use it."""
    return file.name.removesuffix(".gz").removesuffix(".jsonl")


class ReplaySpec(BaseModel):
    """The replay. The cluster decides on fields that are None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replay: str
    """The name of the set."""
    fingerprint: str
    questions: int
    models: tuple[str, ...]
    reader: str
    feedback: int = Field(default=0, ge=0)
    """How many of the first answers are rated."""
    learn: bool = True
    model: str | None = None
    budget: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int = 0
    speed: float = Field(default=300, ge=0)
    chunk_tokens: int = Field(default=32, ge=1)
    settings: dict[str, dict[str, Any]] = {}

    def body(self, pattern: str, record: RecordedQuestion) -> dict[str, Any]:
        """Return the body for `/v1/chat/completions`, without fields that are None; a seed other than 0 is
        derived for each question."""
        orchestra: dict[str, Any] = {}
        if settings := self.settings.get(pattern):
            orchestra["settings"] = settings
        if self.budget is not None:
            orchestra["budget"] = {"tokens": self.budget}
        if self.model is not None:
            orchestra["model"] = self.model
        body: dict[str, Any] = {
            "model": f"orchestra/{pattern}",
            "messages": [each.model_dump(mode="json", exclude_none=True) for each in record.messages],
            "cache": {"no_store": True},
            "orchestra": orchestra,
        }
        if self.seed:
            body["seed"] = zlib.crc32(f"{self.seed} {record.id}".encode()) >> 1
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        return body


def panel_settings(
    settings: dict[str, dict[str, Any]], patterns: Collection[str], models: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the settings with the panel of the command as the models of the ensemble, unless they name
    others."""
    if not models or "ensemble" not in patterns:
        return settings
    return settings | {"ensemble": {"models": list(models)} | settings.get("ensemble", {})}
