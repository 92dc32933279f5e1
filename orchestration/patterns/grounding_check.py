"""Whether what an answer claims is supported by the sources that it was given.

A claim is a sentence. It is held against every sentence of the sources and every two that follow each other:
how close they are in meaning (the cosine of their vectors), and which of its words the source has. Embeddings
are blind to what turns a statement round, so a number or a name that the source lacks, or a denial on one
side only, counts against it. It is a measure to point at what should be checked, not a proof; entailment
models do better (SummaC: Laban et al., TACL 2022) and cost a model more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestration.patterns.consensus.numbers import numbers
from orchestration.sentences import sentences

SUPPORTED = 0.55
"""The score from which a claim counts as supported. Of claims judged by hand 86 % are judged right where this
was chosen, and 93 % of others; see the tests."""
MEANING = 0.6
"""What the cosine counts; the rest is for words in common."""
MIN_CLAIM_WORDS = 4
"""A shorter sentence claims nothing that could be checked."""
MAX_CLAIMS = 24
MAX_EVIDENCE = 64
"""Sentences, and pairs of them, of the sources that are embedded: about 0.2 s on a CPU."""
_STEM = 5
"""Letters of a word that count: a crude stemmer that needs no language."""

_WORD = re.compile(r"[^\W_]+")
_CITED = re.compile(r"(?<!\s)\s*\[\d+(?:\s*,\s*\d+)*\]")
_PROGRAM = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_NAME = re.compile(r"(?<=[a-zß-ÿ,;:] )(?!I\b)[A-ZÀ-Þ][^\W_]*")
_DENIALS = frozenset(
    ("no", "not", "never", "none", "cannot", "without", "nothing", "nicht", "kein", "keine", "nie")
)
_HEDGES = re.compile(
    r"\b(?:I (?:do not|don't|cannot|can't)|I'm not|as an AI|the sources? do(?:es)? not)\b", re.I
)

Vectors = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Claim:
    """`score` from 0 to 1, and the index of the source that supports it best."""

    text: str
    score: float
    source: int

    @property
    def supported(self) -> bool:
        return self.score >= SUPPORTED


def claims_of(answer: str) -> list[str]:
    """What an answer claims, one sentence each, without citations: no questions, programs, headings, and no
    saying that something is not known."""
    found: list[str] = []
    for sentence in sentences(_PROGRAM.sub(" ", answer)):
        text = " ".join(_CITED.sub("", sentence).split()).lstrip("#*->• ")
        checkable = len(_WORD.findall(text)) >= MIN_CLAIM_WORDS and not text.endswith(("?", ":"))
        if checkable and not _HEDGES.search(text):
            found.append(text)
    return found[:MAX_CLAIMS]


def evidence(sources: Iterable[str]) -> list[tuple[int, str]]:
    """What a claim is held against: the sentences of each source with its index, alone and by twos."""
    found: list[tuple[int, str]] = []
    for index, source in enumerate(sources):
        texts = [" ".join(sentence.split()) for sentence in sentences(source)]
        found += [(index, sentence) for sentence in texts]
        found += [(index, f"{one} {next_}") for one, next_ in pairwise(texts)]
    return found[:MAX_EVIDENCE]


def judged(claims: Sequence[str], held: Sequence[tuple[int, str]], vectors: Vectors) -> list[Claim]:
    """How well each claim is supported by the evidence. `vectors` has one of length 1 for each text; where it
    is empty, words alone are compared."""
    facts = [(index, text, _Facts.of(text)) for index, text in held]
    return [_judged(claim, facts, vectors) for claim in claims]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a statement has beside its meaning."""

    words: frozenset[str]
    names: frozenset[str]
    numbers: frozenset[object]
    denies: bool

    @classmethod
    def of(cls, text: str) -> _Facts:
        lower = [word.casefold() for word in _WORD.findall(text.replace("n't", " not"))]
        return cls(
            words=frozenset(_stem(word) for word in lower if len(word) > 3),
            names=frozenset(_stem(name.casefold()) for name in _NAME.findall(text)),
            numbers=frozenset(numbers(text)),
            denies=not _DENIALS.isdisjoint(lower),
        )


def _stem(word: str) -> str:
    return word[:_STEM]


def _judged(claim: str, held: Sequence[tuple[int, str, _Facts]], vectors: Vectors) -> Claim:
    mine = _Facts.of(claim)
    best = Claim(claim, 0.0, 0)
    for index, text, theirs in held:
        covered = len(mine.words & theirs.words) / len(mine.words) if mine.words else 0.0
        close = _cosine(vectors.get(claim), vectors.get(text))
        score = covered if close is None else MEANING * close + (1 - MEANING) * covered
        score -= 0.5 * len(mine.numbers - theirs.numbers)
        score -= 0.3 * len(mine.names - theirs.names - theirs.words)
        score -= 0.5 * (mine.denies != theirs.denies)
        if score > best.score:
            best = Claim(claim, round(min(1.0, score), 3), index)
    return best


def _cosine(one: Sequence[float] | None, other: Sequence[float] | None) -> float | None:
    if one is None or other is None:
        return None
    return sum(a * b for a, b in zip(one, other, strict=True))
