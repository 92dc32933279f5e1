"""The data types of documents: parsed, stored and found."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

WORD_CHARACTERS = 64
"""Maximum characters of a word. An embedding model reads a word of more than 100 characters (a sequence,
Base64, minified code, a line of CSV) as one unknown token."""
_LONG = re.compile(rf"\S{{{WORD_CHARACTERS}}}(?=\S)")


def split_long_words(text: str) -> str:
    """The text with spaces inserted into words of more than `WORD_CHARACTERS` characters."""
    return _LONG.sub(r"\g<0> ", text)


@dataclass(frozen=True, slots=True)
class Section:
    """The text below one heading; the heading is '' if there is none."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The text of a document. `title` and `encoding` are '' if the format has none."""

    title: str
    sections: tuple[Section, ...]
    encoding: str = ""


@dataclass(frozen=True)
class Passage:
    """A part of a document that fits an embedding model."""

    heading: str
    text: str

    @property
    def embedded(self) -> str:
        """The text to embed: the heading and the text."""
        return split_long_words(f"{self.heading}\n{self.text}" if self.heading else self.text)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the embedded text, the key of its vector."""
        return hashlib.sha256(self.embedded.encode(errors="replace")).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A stored document. `source`: absolute path or URL; `digest`: SHA-256 of the bytes; `added_at`: Unix
    time."""

    id: int
    source: str
    title: str
    digest: bytes
    bytes: int
    passages: int
    added_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """A passage found by a search. `score` is the fused rank score, comparable within one search only;
    `similarity` is the cosine similarity of the vectors."""

    source: str
    title: str
    heading: str
    text: str
    score: float
    similarity: float

    def as_json(self) -> dict[str, Any]:
        """As tools and commands give it."""
        return {
            "document": self.source,
            "title": self.title,
            "heading": self.heading,
            "passage": self.text,
            "similarity": round(self.similarity, 4),
            "score": round(self.score, 6),
        }
