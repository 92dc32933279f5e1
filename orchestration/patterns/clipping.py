"""Bounds on the text that is passed from agent to agent, measured without a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence

ASCII_PER_TOKEN = 3.0
"""English runs at about 4 characters a token; code, names and digits at 2 to 3."""
OTHER_PER_TOKEN = 0.8
"""Characters beyond ASCII. Small vocabularies spell many of them byte by byte, so count high."""

NOTE = " […{} characters left out…] "
MARK = re.compile(
    r"\[?(?:…|\.\.\.)\s*\d+ characters left out|characters left out\s*(?:…|\.\.\.)\]?", re.IGNORECASE
)
"""`NOTE` as a model may say it again."""


def estimate_tokens(text: str) -> float:
    """About how many tokens `text` is, rather too many than too few."""
    plain = len(text.encode("ascii", "ignore"))
    return plain / ASCII_PER_TOKEN + (len(text) - plain) / OTHER_PER_TOKEN


def clip(text: str, tokens: int, *, head: float = 2 / 3) -> str:
    """`text` if it has at most about `tokens` tokens; else its beginning and end around a note that
    says how much is missing. The note comes on top of `tokens`, of which `head` is the beginning's share."""
    text = text.strip()
    if estimate_tokens(text) <= tokens:
        return text
    first = _fitting(text, tokens * head)
    tail = _fitting(text[::-1], tokens * (1 - head))
    kept = text[len(text) - tail :] if tail else ""
    return text[:first].rstrip() + NOTE.format(len(text) - first - tail) + kept.lstrip()


def truncate(text: str, tokens: int) -> str:
    """Like `clip`, for what a person reads: what is kept is the beginning, and `…` stands for the rest. No
    agent is shown `NOTE` that way, which it may say again."""
    text = text.strip()
    if estimate_tokens(text) <= tokens:
        return text
    return text[: _fitting(text, tokens)].rstrip() + "…"


def clip_fairly(texts: Sequence[str], tokens: int) -> list[str]:
    """Like `clip`, for texts that have about `tokens` tokens together: what short ones leave of their shares
    goes to the others (max-min fairness)."""
    given = fair_shares([estimate_tokens(text.strip()) for text in texts], tokens)
    return [clip(text, share) for text, share in zip(texts, given, strict=True)]


def fair_shares(needs: Sequence[float], tokens: int) -> list[int]:
    """What each of those that need so much gets of `tokens` (max-min fairness); none gets less than another
    that needs as much."""
    given, left = [0] * len(needs), float(tokens)
    for done, at in enumerate(sorted(range(len(needs)), key=needs.__getitem__)):
        share = left / (len(needs) - done)
        given[at] = int(share)
        left -= min(needs[at], share)
    return given


def _fitting(text: str, tokens: float) -> int:
    """How many characters from the beginning have at most `tokens` tokens."""
    left = tokens
    for index, character in enumerate(text):
        left -= 1 / ASCII_PER_TOKEN if character.isascii() else 1 / OTHER_PER_TOKEN
        if left < 0:
            return index
    return len(text)
