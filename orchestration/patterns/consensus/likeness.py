"""How alike free texts are, and which of them say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestration.patterns.consensus.final import exact, is_short
from orchestration.patterns.consensus.numbers import numbers

Matrix = npt.NDArray[np.float64]
Facts = tuple[bool, set[Fraction]]

ALIKE = 0.8
"""Cosine of all-MiniLM-L6-v2 from which two answers to one question say the same. Answers share the words of
their question, so that even opposite ones lie at 0.5 to 0.8; paraphrases lie at 0.75 to 1."""
OVERLAP = 0.5
"""The same for the share of words in common."""

STATEMENT_WORDS = 25
"""A text of at most so many words states one thing, which a `not` or another number turns round. Longer ones
have both somewhere, and are judged as a whole."""

_WORD = re.compile(r"\w+")
_STOP = frozenset(
    _WORD.findall(
        "a an and are as at be because been but by can could do does for from had has have he her his i in "
        "is it its of on or our she should so than that the their them then there these they this to was we "
        "were which who will with would you your"
    )
)
_NEGATIONS = frozenset(
    ("no", "not", "never", "none", "cannot", "without", "nicht", "kein", "keine", "nie", "ne", "pas")
)


def likeness(
    texts: Sequence[str], vectors: Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]] | None = None
) -> Matrix:
    """How alike each two of `texts` are: the cosine of their `vectors` (of length 1), else the share of
    content words in common (Sørensen-Dice). Embeddings are blind to what turns a statement round: where one
    of two statements denies and the other does not, or their numbers differ, they are not alike at all. A
    short answer that the other one contains is the same."""
    count = len(texts)
    words = [_words(text) for text in texts]
    made = np.eye(count)
    close = np.asarray(vectors, dtype=float) if vectors is not None else None
    facts = [_facts(each, text) for each, text in zip(words, texts, strict=True)]
    for one in range(count):
        for other in range(one):
            if _opposed(facts[one], facts[other]):
                value = 0.0
            elif _holds(texts[one], texts[other]) or _holds(texts[other], texts[one]):
                value = 1.0
            elif close is not None:
                value = float(close[one] @ close[other])
            else:
                value = _overlap(_content(words[one]), _content(words[other]))
            made[one, other] = made[other, one] = value
    return made


def clusters(alike: Matrix, threshold: float) -> list[list[int]]:
    """Texts that say the same: every two of a cluster are at least `threshold` alike (complete linkage:
    Manning, Raghavan, Schütze, Introduction to Information Retrieval, 2008, section 17.2). Connected
    components would chain A to C over a B between the two; saying the same has to hold both ways between
    all, as in semantic entropy (Farquhar et al., Nature 630, 2024). Deterministic; the earliest first."""
    groups = [[index] for index in range(len(alike))]
    while True:
        best: tuple[float, int, int] | None = None
        for one in range(len(groups)):
            for other in range(one + 1, len(groups)):
                least = float(alike[np.ix_(groups[one], groups[other])].min())
                if least >= threshold and (best is None or least > best[0]):
                    best = (least, one, other)
        if best is None:
            return groups
        _, one, other = best
        groups[one] = sorted(groups[one] + groups.pop(other))


def medoid(members: Sequence[int], alike: Matrix, weights: Sequence[float]) -> int:
    """The member that is most alike to the others, by their weight: what minimum Bayes risk decoding takes
    (Kumar and Byrne, HLT-NAACL 2004). The earliest of equals."""
    pull = np.asarray([weights[index] for index in members])
    said = alike[np.ix_(members, members)] @ pull
    return members[int(np.argmax(np.round(said, 9)))]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold().replace("n't", " not"))


def _content(words: Sequence[str]) -> set[str]:
    return {word for word in words if word not in _STOP}


def _overlap(one: set[str], other: set[str]) -> float:
    return 2 * len(one & other) / (len(one) + len(other)) if one and other else 0.0


def _facts(words: Sequence[str], text: str) -> Facts | None:
    """Whether a statement denies, and its numbers."""
    return (bool(set(words) & _NEGATIONS), set(numbers(text))) if len(words) <= STATEMENT_WORDS else None


def _opposed(one: Facts | None, other: Facts | None) -> bool:
    if one is None or other is None:
        return False
    return one[0] != other[0] or bool(one[1] and other[1] and one[1].isdisjoint(other[1]))


def _holds(brief: str, text: str) -> bool:
    """Whether a short answer's words stand in `text` in their order."""
    if not is_short(brief):
        return False
    words = exact(brief)
    return words is not None and f" {words} " in f" {exact(text) or ''} "
