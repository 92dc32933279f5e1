"""A caller's rules for single tokens: logit bias, and tokens that end the answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestration.errors import InvalidRequest
from orchestration.messages import Sampling


class TokenRules:
    """The rules of one generation. Use `of`, which returns None if there is none."""

    __slots__ = ("_bias", "_biased", "_ends", "_ignore_ends", "_min_tokens", "stops")

    def __init__(self, sampling: Sampling, ends: Sequence[int]) -> None:
        bias = sampling.logit_bias or {}
        self._biased = np.fromiter(bias, np.int64, len(bias))
        self._bias = np.fromiter(bias.values(), np.float32, len(bias))
        self.stops = frozenset(sampling.stop_token_ids or ())
        """Tokens that end the answer in addition to the model's own."""
        self._ends = np.array(sorted({*ends, *self.stops}), np.int64)
        self._min_tokens = sampling.min_tokens or 0
        self._ignore_ends = bool(sampling.ignore_eos)

    @classmethod
    def of(cls, sampling: Sampling, ends: Sequence[int], vocabulary: int) -> TokenRules | None:
        """Raises `InvalidRequest` for a token outside the vocabulary."""
        rules = (sampling.logit_bias, sampling.stop_token_ids, sampling.min_tokens, sampling.ignore_eos)
        if not any(rules):
            return None
        for name, tokens in (
            ("logit_bias", sampling.logit_bias or {}),
            ("stop_token_ids", sampling.stop_token_ids or ()),
        ):
            for token in tokens:
                if token >= vocabulary:
                    raise InvalidRequest(
                        f"{name}: token {token} is out of range; the model has tokens 0 to {vocabulary - 1}",
                        param=name,
                    )
        return cls(sampling, ends)

    def apply(self, logits: NDArray[np.float32], written: int) -> None:
        """Apply the rules to `logits` [vocabulary] in place; `written` is the number of tokens so far."""
        if len(self._biased):
            logits[self._biased] += self._bias
        if self._ignore_ends or written < self._min_tokens:
            logits[self._ends] = -np.inf
