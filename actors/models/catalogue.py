"""The models that are known by name: `catalogue.toml`, checked."""

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
    """One file of a model; sizes in bytes, `download_bytes` of the archive it comes in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)
    download_bytes: int = Field(gt=0)

    def wanted(self) -> FileSpec:
        return FileSpec(source=parse(self.source), sha256=self.sha256, download_bytes=self.download_bytes)


class CatalogueEntry(BaseModel):
    """A model: what it is, its licence, and its files by their part in it.

    Format `gguf` has `weights` and maybe `license`; `sentence-transformers` has `weights`, `tokenizer`
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
        """Bytes that a pull downloads; files of one archive count once."""
        archives = {file.source.partition("#")[0]: file.download_bytes for file in self.files.values()}
        return sum(archives.values())

    @property
    def needed_bytes(self) -> int:
        """Free disk space that a pull needs at its peak: archive, unpacked files, and the model (half
        as large again as the weights at most)."""
        return self.download_bytes + sum(file.bytes for file in self.files.values()) * 5 // 2


@cache
def catalogue() -> dict[str, CatalogueEntry]:
    """Every entry by name. Raises pydantic's ValidationError if the file that is shipped is wrong."""
    text = resources.files("actors.models").joinpath(_FILE).read_text(encoding="utf-8")
    models = tomllib.loads(text)["models"]
    return {name: CatalogueEntry.model_validate(entry) for name, entry in models.items()}
