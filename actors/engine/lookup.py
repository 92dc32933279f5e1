"""Proposes the next tokens of an answer from the text before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SAME = 3
"""Tokens that must have occurred before. With 2, free text gets more proposals that are wrong."""

_LEAST, _WEIGHT = 0.6, 0.15
"""The least share of right tokens for a proposal, which is also assumed at first; and the weight of each new
token. On 22 traces of SmolLM2 (JSON, code edits, summaries, free text) none then took 2 % longer."""


class PromptLookup:
    """The tokens of a prompt and its answer so far, and proposals how they go on.

    A proposal is what followed the last three tokens where they occurred before (prompt lookup decoding). It
    is withheld while too few of the latest proposed tokens were right; those withheld count too.
    """

    __slots__ = ("_count", "_expected", "_share", "_tokens")

    def __init__(self, prompt: NDArray[np.int64], max_new: int) -> None:
        self._tokens = np.empty(len(prompt) + max_new, np.int64)
        self._tokens[: len(prompt)] = prompt
        self._count = len(prompt)
        self._expected: list[int] = []
        """The rest of the latest proposal, last token first."""
        self._share = _LEAST

    def append(self, token: int) -> None:
        """Append a token of the answer."""
        self._tokens[self._count] = token
        self._count += 1
        if self._expected:
            right = token == self._expected.pop()
            self._share += _WEIGHT * (right - self._share)
            if not right:
                self._expected.clear()

    def propose(self, count: int) -> list[int]:
        """`count` tokens that may follow, or none."""
        proposal = self._found(count)
        self._expected = proposal[::-1]
        return proposal if self._share >= _LEAST else []

    def _found(self, count: int) -> list[int]:
        """What followed the latest occurrence of the last tokens; it repeats if it reaches the end."""
        tokens = self._tokens[: self._count]
        if count <= 0 or len(tokens) <= _SAME:
            return []
        places = len(tokens) - _SAME
        same = np.ones(places, np.bool_)
        for at, token in enumerate(tokens[-_SAME:].tolist()):
            same &= tokens[at : at + places] == token
        found = np.flatnonzero(same)
        if not len(found):
            return []
        proposal: list[int] = np.resize(tokens[found[-1] + _SAME :], count).tolist()
        return proposal
