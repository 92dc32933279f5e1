"""Recognises texts that are empty or repeat themselves."""

from __future__ import annotations

LOOP_WORDS = 24
LOOP_SHARE = 0.25
"""A text of at least `LOOP_WORDS` words, with at most this share of different ones, is a loop."""
TAIL_WORDS = 160
"""Words at the end of a longer text that are examined. Mathematics repeats words, but not phrases."""
_GRAM = 4


def is_garbage(text: str) -> bool:
    """Whether a text has no letter or digit, or repeats a few words from its first half on."""
    if not any(each.isalnum() for each in text):
        return True
    words = text.casefold().split()
    if len(words) < LOOP_WORDS:
        return False
    if len(words) <= TAIL_WORDS:
        return _repeats(words)
    middle = len(words) // 2
    return _repeats(words[-TAIL_WORDS:]) and _repeats(words[middle : middle + TAIL_WORDS])


def loops(text: str) -> bool:
    """Whether a text ends in a loop, so that its end is not a conclusion."""
    words = text[-4_000:].casefold().split()[-TAIL_WORDS:]
    return len(words) >= LOOP_WORDS and _repeats(words)


def _repeats(words: list[str]) -> bool:
    if len(words) < 3 * LOOP_WORDS and len(set(words)) >= LOOP_SHARE * len(words):
        return False
    grams = {tuple(words[at : at + _GRAM]) for at in range(len(words) - _GRAM + 1)}
    return len(grams) < LOOP_SHARE * (len(words) - _GRAM + 1)
