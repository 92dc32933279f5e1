"""Splits the sections of a document into passages that fit an embedding model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import ceil

from actors.knowledge.document import WORD_CHARACTERS, ParsedDocument, Passage, split_long_words
from orchestration.sentences import sentences

MAX_TOKENS = 240
"""Maximum tokens of a passage with its heading; all-MiniLM-L6-v2 was trained on 256 with two special
tokens."""
OVERLAP_TOKENS = 40
"""Maximum tokens of whole sentences that a passage repeats from the previous one."""
TOKEN_CHARACTERS = 8
"""Maximum characters counted per token: for unknown scripts the tokenizer counts a whole word as one
token."""
HEADING_CHARACTERS = 120

Count = Callable[[str], int]
"""Counts the tokens of a text."""


def passages(reading: ParsedDocument, count: Count) -> list[Passage]:
    """The passages of a document in order. Each word is in at least one of them, and none has more than
    `MAX_TOKENS` tokens including its heading."""
    found: list[Passage] = []

    def read(text: str) -> int:
        return max(count(split_long_words(text)), ceil(len(text) / TOKEN_CHARACTERS))

    for section in reading.sections:
        heading = " ".join(section.heading.split())[:HEADING_CHARACTERS]
        room = MAX_TOKENS - (read(heading) if heading else 0)
        units = [(unit, read(unit)) for unit in _units(section.text, room, read)]
        found.extend(Passage(heading, text) for text in _packed(units, room))
    return found


def _units(text: str, room: int, count: Count) -> Iterator[str]:
    """Sentences, split where they have more than `room` tokens."""
    for sentence in sentences(text):
        if count(sentence) <= room:
            yield sentence
        else:
            yield from _parts(sentence, room, count)


def _parts(text: str, room: int, count: Count) -> Iterator[str]:
    """Parts of a long sentence: lines of a table or program, words, or slices of text without spaces."""
    pieces, joint = (text.split("\n"), "\n") if "\n" in text else (text.split(), " ")
    if len(pieces) == 1:
        size = WORD_CHARACTERS if len(text) > WORD_CHARACTERS else max(1, len(text) // 2)
        pieces, joint = [text[at : at + size] for at in range(0, len(text), size)], ""
    gathered, tokens = "", 0
    for piece in pieces:
        size = count(piece)
        if gathered and tokens + size > room:
            yield gathered
            gathered, tokens = "", 0
        if size > room:
            yield from _parts(piece.strip(), room, count)
            continue
        gathered, tokens = (gathered + joint + piece if gathered else piece), tokens + size
    if gathered.strip():
        yield gathered


def _packed(units: Iterable[tuple[str, int]], room: int) -> Iterator[str]:
    """Passages of as many units as fit; the next passage repeats the last ones."""
    taken: list[tuple[str, int]] = []
    fresh = 0
    """Number of units in `taken` that are in no passage yet."""
    for unit, size in units:
        if fresh and sum(tokens for _, tokens in taken) + size > room:
            yield _joined(taken)
            taken, fresh = _tail(taken, room - size), 0
        taken.append((unit, size))
        fresh += 1
    if fresh:
        yield _joined(taken)


def _tail(taken: list[tuple[str, int]], room: int) -> list[tuple[str, int]]:
    """The last units with at most `OVERLAP_TOKENS` and `room` tokens."""
    tail: list[tuple[str, int]] = []
    left = min(OVERLAP_TOKENS, room)
    for unit, size in reversed(taken):
        left -= size
        if left < 0:
            break
        tail.insert(0, (unit, size))
    return tail


def _joined(units: Iterable[tuple[str, int]]) -> str:
    return " ".join(unit for unit, _ in units)
