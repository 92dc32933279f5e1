"""Limits the text that is passed between agents, measured without a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence

ASCII_PER_TOKEN = 3.0
"""ASCII characters per token: English has about 4; code, names and digits have 2 to 3."""
OTHER_PER_TOKEN = 0.8
"""Other characters per token. Small vocabularies spell many of them byte by byte, so the estimate is high."""

NOTE = " […{} characters left out…] "
MARK = re.compile(
    r"\[?(?:…|\.\.\.)\s*\d+ characters left out|characters left out\s*(?:…|\.\.\.)\]?", re.IGNORECASE
)
"""`NOTE` as a model may repeat it."""


def estimate_tokens(text: str) -> float:
    """The approximate number of tokens of `text`, rather too many than too few."""
    plain = len(text.encode("ascii", "ignore"))
    return plain / ASCII_PER_TOKEN + (len(text) - plain) / OTHER_PER_TOKEN


def clip(text: str, tokens: int, *, head: float = 2 / 3) -> str:
    """`text` if it has at most about `tokens` tokens; else its beginning and end around a note of how much is
    missing. The note is not counted; `head` is the share of the beginning."""
    text = text.strip()
    if estimate_tokens(text) <= tokens:
        return text
    first = _fitting(text, tokens * head)
    tail = _fitting(text[::-1], tokens * (1 - head))
    end = text[len(text) - tail :] if tail else ""
    return text[:first].rstrip() + NOTE.format(len(text) - first - tail) + end.lstrip()


def truncate(text: str, tokens: int) -> str:
    """The beginning of `text`, of at most about `tokens` tokens, with `…` where more follows. It is for
    people: models get `NOTE`, which they may repeat."""
    text = text.strip()
    if estimate_tokens(text) <= tokens:
        return text
    return text[: _fitting(text, tokens)].rstrip() + "…"


def clip_fairly(texts: Sequence[str], tokens: int) -> list[str]:
    """The texts clipped to about `tokens` tokens in all: what short ones leave of their shares goes to the
    others (max-min fairness)."""
    given = fair_shares([estimate_tokens(text.strip()) for text in texts], tokens)
    return [clip(text, share) for text, share in zip(texts, given, strict=True)]


def fair_shares(needs: Sequence[float], tokens: int) -> list[int]:
    """The share of `tokens` for each need (max-min fairness): equal needs get equal shares."""
    given, left = [0] * len(needs), float(tokens)
    for done, at in enumerate(sorted(range(len(needs)), key=needs.__getitem__)):
        share = left / (len(needs) - done)
        given[at] = int(share)
        left -= min(needs[at], share)
    return given


def _fitting(text: str, tokens: float) -> int:
    """The length of the longest prefix with at most `tokens` tokens."""
    left = tokens
    for index, character in enumerate(text):
        left -= 1 / ASCII_PER_TOKEN if character.isascii() else 1 / OTHER_PER_TOKEN
        if left < 0:
            return index
    return len(text)
