"""What a document is made of, from its reading to its finding."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

WORD_CHARACTERS = 64
"""Of a word that an embedding model reads: what has more than 100 is one unknown token to it, however long it
is, such as a sequence, Base64, minified code or a line of CSV."""
_LONG = re.compile(rf"\S{{{WORD_CHARACTERS}}}(?=\S)")


def split_long_words(text: str) -> str:
    """The text with spaces in words of more than `WORD_CHARACTERS` characters."""
    return _LONG.sub(r"\g<0> ", text)


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a document below one heading; '' where it has none."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The text of a document. `title` is '' where it says none, `encoding` where its format has its own."""

    title: str
    sections: tuple[Section, ...]
    encoding: str = ""


@dataclass(frozen=True)
class Passage:
    """A piece of a document that an embedding model takes in whole."""

    heading: str
    text: str

    @property
    def embedded(self) -> str:
        """What is embedded: a heading tells what the text is about."""
        return split_long_words(f"{self.heading}\n{self.text}" if self.heading else self.text)

    @cached_property
    def digest(self) -> bytes:
        """Of what is embedded: the same for the same vector."""
        return hashlib.sha256(self.embedded.encode(errors="replace")).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What is stored. `source` is an absolute path or a URL, `digest` of the bytes, `added_at` Unix time."""

    id: int
    source: str
    title: str
    digest: bytes
    bytes: int
    passages: int
    added_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """A passage that a search found. `score` is the fused ranks', which says something within one search
    only; `similarity` is the cosine of the meanings."""

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
