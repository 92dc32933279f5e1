"""Reads documents from files, folders and, if allowed, the web."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.knowledge.errors import DocumentTooLarge, UnreadableDocument
from actors.knowledge.fetch import Fetcher, is_url
from actors.knowledge.formats import SUFFIXES, Kind, kind_of
from actors.knowledge.settings import KnowledgeSettings

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class RawDocument:
    """The bytes of a document, and what they are."""

    data: bytes
    kind: Kind
    name: str


def list_sources(places: tuple[str, ...]) -> Iterator[str]:
    """The sources that `places` name, each a URL or an absolute path: of a folder, the documents in it and
    below whose suffix is known, without those that are hidden. Links are not followed into folders."""
    for place in places:
        if is_url(place):
            yield place
            continue
        path = Path(place).expanduser().absolute()
        if not path.is_dir():
            yield str(path)
            continue
        for folder, below, names in os.walk(path):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in sorted(names):
                if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                    yield os.path.join(folder, name)


async def read_source(source: str, settings: KnowledgeSettings) -> RawDocument:
    """The document at `source`. Raises a `KnowledgeError` that says why it cannot be had."""
    if is_url(source):
        page = await Fetcher(settings).fetch(source)
        return RawDocument(page.data, kind_of(page.name, page.data, page.content_type), page.name)
    data = _file(Path(source), settings.max_document_mb)
    return RawDocument(data, kind_of(source, data), Path(source).name)


def _file(path: Path, max_mb: float) -> bytes:
    try:
        if not path.exists():
            raise UnreadableDocument("there is no such file")
        if not path.is_file():  # a device or a pipe may never end
            raise UnreadableDocument("it is not a regular file")
        size = path.stat().st_size
        if size > max_mb * MB:
            raise DocumentTooLarge(
                f"it has {size / MB:.0f} MB, more than knowledge.max_document_mb {max_mb:g}"
            )
        return path.read_bytes()
    except OSError as error:
        raise UnreadableDocument(f"it cannot be opened: {error.strerror}") from error
