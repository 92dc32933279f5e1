"""Classifies a query: its kind, its difficulty, and the expected length of the answer.

A linear classifier on the mean of the query's static MiniLM token embeddings and its surface (`features`).
The mean is linear in the tokens, so the weights are folded into seven numbers per vocabulary entry: no model
runs, and a query takes well below a millisecond. MiniLM itself would take 3 ms for 15 tokens on two cores,
and did not classify better. `tests/orchestration/query_analysis/train.py` makes `weights.npz`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestration.query_analysis.features import KINDS, Kind, features
from orchestration.query_analysis.word_pieces import word_pieces

Level = Literal["easy", "medium", "hard"]
HEADS: tuple[str, ...] = (*KINDS, "difficulty", "log2 tokens")
HEAD_CHARACTERS, TAIL_CHARACTERS = 400, 150
"""Characters that are read of a long query: the request is usually at one of its ends."""
MAX_PIECES = 128
"""Word pieces of a query that are read."""
EASY_BELOW, HARD_FROM = 0.3, 0.7
"""Difficulties that separate the levels."""
MIN_TOKENS, MAX_TOKENS = 8, 2048
"""Bounds of the expected length of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The result of the analysis of a query."""

    kind: Kind
    confidence: float
    """The probability of `kind`."""
    difficulty: float
    """0 is easiest, 1 hardest."""
    tokens: int
    """The expected length of the answer."""

    @property
    def level(self) -> Level:
        if self.difficulty < EASY_BELOW:
            return "easy"
        return "medium" if self.difficulty < HARD_FROM else "hard"


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights: `table` [pieces, heads] is multiplied by `scale` [heads]; `surface` is [features,
    heads]."""

    vocabulary: dict[str, int]
    table: NDArray[np.int8]
    scale: NDArray[np.float32]
    surface: NDArray[np.float32]
    bias: NDArray[np.float32]

    def scores(self, text: str) -> NDArray[np.float32]:
        """Return the score of each head."""
        ids = word_pieces(text, self.vocabulary)[:MAX_PIECES]
        total = features(text) @ self.surface + self.bias
        if ids:
            total = total + self.table[ids].mean(axis=0, dtype=np.float32) * self.scale
        return np.asarray(total, np.float32)


@cache
def default_weights() -> Weights:
    """Return the weights in the package. The first call takes 20 ms."""
    with resources.files("orchestration.query_analysis").joinpath("weights.npz").open("rb") as file:
        found = np.load(file, allow_pickle=False)
        words = found["vocabulary"].tobytes().decode().split("\n")
        return Weights(
            vocabulary={word: at for at, word in enumerate(words)},
            table=found["table"],
            scale=found["scale"],
            surface=found["surface"],
            bias=found["bias"],
        )


def analyse(text: str, weights: Weights | None = None) -> Analysis:
    """Analyse a query. Any text is accepted, an empty one too."""
    if len(text) > HEAD_CHARACTERS + TAIL_CHARACTERS:
        text = f"{text[:HEAD_CHARACTERS]}\n{text[-TAIL_CHARACTERS:]}"
    scores = (weights or default_weights()).scores(text)
    kinds = np.exp(scores[: len(KINDS)] - scores[: len(KINDS)].max())
    kinds /= kinds.sum()
    best = int(kinds.argmax())
    tokens = 2.0 ** float(np.clip(scores[-1], math.log2(MIN_TOKENS), math.log2(MAX_TOKENS)))
    return Analysis(
        kind=KINDS[best],
        confidence=float(kinds[best]),
        difficulty=float(np.clip(scores[-2], 0, 1)),
        tokens=round(tokens),
    )
