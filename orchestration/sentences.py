"""Splits text into sentences, for any language that ends them with a punctuation mark."""

from __future__ import annotations

import re

_ABBREVIATIONS = (
    r"(?<!\b[A-Z]\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bDr\.)(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bSt\.)"
    r"(?<!\bvs\.)(?<!\bcf\.)(?<!\bNo\.)(?<!\bFig\.)(?<!\bz\.B\.)(?<!\bbzw\.)(?<!\bca\.)"
)
_END = re.compile(rf"(?<=[.!?…])[\"'”’)\]]*{_ABBREVIATIONS}\s+(?=\S)|(?<=[。！？])\s*(?=\S)|\n\s*\n")


def sentences(text: str) -> list[str]:
    """The sentences of `text` in order, without surrounding space. A single line break does not end a
    sentence."""
    found: list[str] = []
    start = 0
    for match in _END.finditer(text):
        end = match.start() + len(match.group().rstrip())
        found.append(text[start:end].strip())
        start = match.end()
    found.append(text[start:].strip())
    return [each for each in found if each]
