"""The catalogue of models that can be pulled by name, from `catalogue.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from actors.models.download import FileSpec
from actors.models.source import parse

_FILE = "catalogue.toml"


class CatalogueFile(BaseModel):
    """One file of a model. Sizes in bytes; `download_bytes` is the size of its archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)
    download_bytes: int = Field(gt=0)

    def spec(self) -> FileSpec:
        return FileSpec(source=parse(self.source), sha256=self.sha256, download_bytes=self.download_bytes)


class CatalogueEntry(BaseModel):
    """A model: kind, licence, and files by role.

    Format `gguf` has `weights` and optionally `license`; `sentence-transformers` has `weights`, `tokenizer`
    and `config`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["chat", "embedding"]
    about: str
    license: str
    format: Literal["gguf", "sentence-transformers"]
    files: dict[str, CatalogueFile]

    @property
    def download_bytes(self) -> int:
        """Bytes to download; an archive with several files counts once."""
        archives = {file.source.partition("#")[0]: file.download_bytes for file in self.files.values()}
        return sum(archives.values())

    @property
    def needed_bytes(self) -> int:
        """Free disk space that a pull needs: archive, unpacked files, and the model (at most 1.5 times the
        weights)."""
        return self.download_bytes + sum(file.bytes for file in self.files.values()) * 5 // 2


@cache
def catalogue() -> dict[str, CatalogueEntry]:
    """All entries by name. Raises pydantic's ValidationError if the shipped file is invalid."""
    text = resources.files("actors.models").joinpath(_FILE).read_text(encoding="utf-8")
    models = tomllib.loads(text)["models"]
    return {name: CatalogueEntry.model_validate(entry) for name, entry in models.items()}
