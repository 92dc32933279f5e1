"""Compares free texts: how similar they are, and which say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestration.patterns.consensus.final import exact, final_answer, is_short
from orchestration.patterns.consensus.numbers import numbers
from orchestration.patterns.consensus.statements import window

Matrix = npt.NDArray[np.float64]

MIN_SIMILARITY = 0.8
"""Cosine of all-MiniLM-L6-v2 from which two answers to one question say the same. Answers share the words of
their question, so that even opposite ones have 0.5 to 0.8; paraphrases have 0.75 to 1."""
MIN_OVERLAP = 0.5
"""The same threshold for the share of common words."""

STATEMENT_WORDS = 25
"""A text of at most this many words states one thing, which a `not`, another number or another name reverses.
The statement of a longer text is its final answer or conclusion; without one, it is compared as a whole."""
_SAME_REST = 0.6
"""The share of common other words from which two statements differ only in their numbers or names."""
_FEW_NAMES = 0.34
"""Maximum share of capitalised words where capitals mark names. A higher share is that of a language such as
German, or of a heading."""

_WORD = re.compile(r"\w+")
_CAPITALS = re.compile(r"\b[^\W\d_a-zß-ÿ]\w+")
_BEGINS = re.compile(r"^$|[.!?:\n\"“*]\s*$")
_CONCLUDES = re.compile(
    r"(?:^|(?<=[.!?\n]\s)|(?<=\n))(?:so|thus|therefore|hence|in (?:short|conclusion|summary)|to sum up|"
    r"overall|in sum|"
    r"daher|deshalb|insgesamt|donc|ainsi|en conclusion|por (?:lo )?tanto|en resumen|quindi|dunque|portanto|"
    r"dus|kortom)\b,?\s*([^.!?\n]+)",
    re.IGNORECASE,
)
_STOP = frozenset(
    _WORD.findall(
        "a an and are as at be because been but by can could do does for from had has have he her his i in "
        "is it its of on or our she should so than that the their them then there these they this to was we "
        "were which who will with would you your"
    )
)
_NEGATIONS = frozenset(
    _WORD.findall(
        "no not never none neither nobody nothing cannot without nicht kein keine nie nein ne pas non jamais "
        "nunca ninguno ninguna mai nessuno não nem niet geen nooit"
    )
)


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a text states. `names` are capitalised words within a sentence, `capitals` all capitalised
    words."""

    words: frozenset[str]
    exact: str
    short: bool
    denies: bool | None
    """Whether it has a negation; None where the text is too long to tell."""
    numbers: frozenset[Fraction]
    names: frozenset[str]
    capitals: frozenset[str]
    rest: frozenset[str]
    """The words without numbers and names."""


def similarity_matrix(
    texts: Sequence[str], vectors: Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]] | None = None
) -> Matrix:
    """The similarity of each pair of `texts`: the cosine of their `vectors` (of length 1), else the share of
    common content words (Sørensen-Dice). Embeddings do not see what reverses a statement: where only one of
    two statements has a negation, or their numbers or names differ, the similarity is 0. Where one contains
    the other, a short answer, it is 1."""
    count = len(texts)
    matrix = np.eye(count)
    if count < 2:
        return matrix
    close = np.asarray(vectors, dtype=float) if vectors is not None else None
    claims = [_claim(text) for text in texts]
    for one in range(count):
        for other in range(one):
            if _opposed(claims[one], claims[other]):
                value = 0.0
            elif _holds(claims[one], claims[other]) or _holds(claims[other], claims[one]):
                value = 1.0
            elif close is not None:
                value = float(close[one] @ close[other])
            else:
                value = _overlap(claims[one].words, claims[other].words)
            matrix[one, other] = matrix[other, one] = value
    return matrix


def clusters(alike: Matrix, threshold: float) -> list[list[int]]:
    """Groups of texts that say the same: all pairs of a group have at least the similarity `threshold`
    (complete linkage: Manning, Raghavan, Schütze, Introduction to Information Retrieval, 2008, section 17.2).
    Connected components would chain A to C over a B between them; saying the same must hold both ways between
    all, as in semantic entropy (Farquhar et al., Nature 630, 2024). The result is deterministic, the earliest
    text first."""
    groups = [[index] for index in range(len(alike))]
    while True:
        best: tuple[float, int, int] | None = None
        for one in range(len(groups)):
            for other in range(one + 1, len(groups)):
                lowest = float(alike[np.ix_(groups[one], groups[other])].min())
                if lowest >= threshold and (best is None or lowest > best[0]):
                    best = (lowest, one, other)
        if best is None:
            return groups
        _, one, other = best
        groups[one] = sorted(groups[one] + groups.pop(other))


def medoid(members: Sequence[int], alike: Matrix, weights: Sequence[float]) -> int:
    """The member that is most similar to the others, by their weight: what minimum Bayes risk decoding takes
    (Kumar and Byrne, HLT-NAACL 2004). The earliest of equals."""
    pull = np.asarray([weights[index] for index in members])
    centrality = alike[np.ix_(members, members)] @ pull
    return members[int(np.argmax(np.round(centrality, 9)))]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold().replace("n't", " not").replace("n’t", " not"))


def _content(words: Sequence[str]) -> frozenset[str]:
    return frozenset(word for word in words if word not in _STOP)


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return 2 * len(one & other) / (len(one) + len(other)) if one and other else 0.0


@lru_cache(maxsize=64)
def _claim(text: str) -> Assertion:
    words = _words(text)
    stated = _statement(text, words)
    stated_words = _words(stated) if stated is not None else []
    found = frozenset(numbers(stated)) if stated is not None else frozenset()
    inner, capitals = _names(stated) if stated is not None else (frozenset(), frozenset())
    rest = frozenset(
        word for word in _content(stated_words) if word not in capitals and not word[0].isdigit()
    )
    denies = bool(_NEGATIONS.intersection(stated_words)) if stated is not None else None
    return Assertion(_content(words), exact(text) or "", is_short(text), denies, found, inner, capitals, rest)


def _statement(text: str, words: Sequence[str]) -> str | None:
    """The one statement of a text; None where it is too long to tell."""
    if len(words) <= STATEMENT_WORDS:
        return text
    read = window(text)
    stated = final_answer(read)
    if stated is None:
        concluded = [match[1] for match in _CONCLUDES.finditer(read)]
        stated = concluded[-1] if concluded else None
    return stated if stated is not None and len(stated.split()) <= STATEMENT_WORDS else None


def _names(text: str) -> tuple[frozenset[str], frozenset[str]]:
    capitals: set[str] = set()
    inner: set[str] = set()
    count = 0
    for match in _CAPITALS.finditer(text):
        word = match[0].casefold()
        if word in _STOP or word in _NEGATIONS:
            continue
        count += 1
        capitals.add(word)
        if not _BEGINS.search(text[max(0, match.start() - 4) : match.start()] if match.start() else ""):
            inner.add(word)
    if count > 2 and count > _FEW_NAMES * len(text.split()):
        return frozenset(), frozenset(capitals)
    return frozenset(inner if count else ()), frozenset(capitals)


def _opposed(one: Assertion, other: Assertion) -> bool:
    if one.denies is None or other.denies is None:
        return False
    if one.denies != other.denies:
        return True
    same_rest = _overlap(one.rest, other.rest) >= _SAME_REST or not one.rest | other.rest
    pairs: tuple[tuple[frozenset[Any], frozenset[Any], frozenset[Any], frozenset[Any]], ...] = (
        (one.numbers, other.numbers, one.numbers, other.numbers),
        (one.names, other.names, one.capitals, other.capitals),
    )
    for mine, theirs, all_mine, all_theirs in pairs:
        if mine and theirs and mine.isdisjoint(all_theirs) and theirs.isdisjoint(all_mine):
            return True
        if same_rest and all_mine - all_theirs and all_theirs - all_mine:
            return True
    return False


def _holds(answer: Assertion, text: Assertion) -> bool:
    """Whether the words of a short answer stand in `text` in their order."""
    return answer.short and bool(answer.exact) and f" {answer.exact} " in f" {text.exact} "
