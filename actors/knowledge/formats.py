"""Extracts text from plain text, Markdown, HTML and PDF. Runs in a child process: see `reader.py`.

Libraries are imported when they are needed: a child that reads plain text starts in 50 ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import PurePath
from typing import Literal

from actors.knowledge.document import ParsedDocument, Section
from actors.knowledge.encodings import decode
from actors.knowledge.errors import UnreadableDocument

Kind = Literal["text", "markdown", "html", "pdf"]

SUFFIXES: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".adoc": "text",
    ".org": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
}
"""Suffixes of files that are read from a folder. A file that is named directly is read as text by default."""

_META = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_NO_TEXT = "script, style, noscript, template, svg, nav, header, footer, aside, form, button, iframe"
_BLOCKS = frozenset(["p", "li", "dt", "dd", "tr", "pre", "blockquote", "div", "section", "article", "table"])
_CELLS = frozenset(["td", "th", "br"])


def kind_of(name: str, data: bytes, content_type: str = "") -> Kind:
    """The kind, from the beginning of the data, the content type, then the name."""
    head = data[:1024].lstrip().lower()
    if head.startswith(b"%pdf-"):
        return "pdf"
    if content_type.startswith(("text/html", "application/xhtml")):
        return "html"
    known = SUFFIXES.get(PurePath(name).suffix.lower())
    if known is None and head.startswith((b"<!doctype html", b"<html")):
        return "html"
    return known or "text"


def read(data: bytes, kind: Kind, encoding: str = "") -> ParsedDocument:
    """Extract the text. `encoding`: of the text, if it must not be detected; ignored for PDF. Raises
    `UnreadableDocument` with the reason."""
    if not data.strip():
        raise UnreadableDocument("it is empty")
    if kind == "pdf":
        reading = _pdf(data)
    else:
        declared = _META.search(data[:4096]) if kind == "html" else None
        found = decode(data, declared=declared.group(1).decode() if declared else "", given=encoding)
        reading = {"text": _text, "markdown": _markdown, "html": _html}[kind](found.text)
        reading = replace(reading, encoding=found.encoding)
    if not any(section.text.strip() for section in reading.sections):
        hint = "; scanned pages would need text recognition" if kind == "pdf" else ""
        raise UnreadableDocument(f"it has no text{hint}")
    return reading


def _text(text: str) -> ParsedDocument:
    return ParsedDocument("", (Section("", text),))


def _markdown(text: str) -> ParsedDocument:
    """Split by headings (found by a parser, as code may have `#`); the text is unchanged."""
    from markdown_it import MarkdownIt

    lines = text.splitlines()
    marks = [(0, 0, "")]
    tokens = MarkdownIt("commonmark").parse("\n".join(lines))
    for token, following in pairwise(tokens):
        if token.type == "heading_open" and token.map and token.level == 0:
            marks.append((token.map[0], token.map[1], following.content))
    title = next((heading for _, _, heading in marks if heading), "")
    ends = [start for start, _, _ in marks[1:]] + [len(lines)]
    sections = [
        Section(heading, "\n".join(lines[begin:end]).strip())
        for (_, begin, heading), end in zip(marks, ends, strict=True)
    ]
    return ParsedDocument(title, tuple(section for section in sections if section.text))


def _html(markup: str) -> ParsedDocument:
    """The visible text of the body, split by headings."""
    from selectolax.lexbor import LexborHTMLParser

    page = LexborHTMLParser(markup)
    found = page.css_first("title")
    title = " ".join(found.text().split()) if found else ""
    for node in page.css(_NO_TEXT):
        node.decompose()
    sections: list[Section] = []
    heading: str = ""
    text: list[str] = []
    body = page.body
    for node in body.traverse(include_text=True) if body is not None else ():
        if node.tag in _HEADINGS:
            sections.append(Section(heading, _plain(text)))
            heading, text = " ".join(node.text(deep=True).split()), []
        elif node.tag == "-text":
            if not _inside_heading(node):
                text.append(node.text(deep=False))
        elif node.tag in _BLOCKS:
            text.append("\n\n")
        elif node.tag in _CELLS:
            text.append(" ")
    sections.append(Section(heading, _plain(text)))
    return ParsedDocument(title or heading, tuple(section for section in sections if section.text))


def _inside_heading(node: object) -> bool:
    """Whether the text is inside a heading."""
    parent = getattr(node, "parent", None)
    while parent is not None:
        if parent.tag in _HEADINGS:
            return True
        parent = parent.parent
    return False


def _plain(parts: list[str]) -> str:
    paragraphs = "".join(parts).split("\n\n")
    return "\n\n".join(filter(None, (" ".join(paragraph.split()) for paragraph in paragraphs)))


def _pdf(data: bytes) -> ParsedDocument:
    """One section per page."""
    from io import BytesIO

    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        document = PdfReader(BytesIO(data))
        if document.is_encrypted and not document.decrypt(""):
            raise UnreadableDocument("it is encrypted with a password")
        title = document.metadata.title if document.metadata else None
        sections = tuple(_pages(document))
    except PyPdfError as error:
        raise UnreadableDocument(f"it is a damaged PDF: {error}") from error
    return ParsedDocument(str(title or ""), sections)


def _pages(document: object) -> Iterator[Section]:
    for number, page in enumerate(document.pages, 1):  # type: ignore[attr-defined]
        text = page.extract_text()
        if text.strip():
            yield Section(f"page {number}", text)
