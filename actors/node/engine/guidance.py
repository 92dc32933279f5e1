"""Generations that conform to a JSON schema, a regular expression, a choice or a grammar, by llguidance."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, grammar_from
from numpy.typing import NDArray

from orchestration.errors import InvalidGuide
from orchestration.messages import Guide

_JSON_STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to lay JSON out: a small model that may choose whitespace can go on with it for ever."""

_PARTS = ("json_schema", "regex", "choice", "grammar")

_KEPT = 64
"""Compiled guides that are kept; a role's schema comes again with each of its steps."""


class RowGuide:
    """Where one generation stands in its guide."""

    __slots__ = ("_bits", "_matcher")

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._bits = np.zeros((vocabulary + 31) // 32, np.int32)

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Set every token of `logits` [vocabulary] that the guide does not allow to minus infinity."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little", count=len(logits))
        allowed = np.flatnonzero(bits)
        kept = logits[allowed]
        logits.fill(-np.inf)
        logits[allowed] = kept

    def advance(self, token: int) -> bool:
        """Take `token`; returns whether the guide is complete and allows nothing more."""
        self._matcher.consume_token(token)
        self._check()
        return self._matcher.is_stopped()

    def consume(self, tokens: NDArray[np.int64]) -> bool:
        """Take what was written before, as `advance` does; a prefix that does not conform is refused."""
        if len(tokens):
            self._matcher.consume_tokens(tokens.tolist())
            self._check()
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InvalidGuide(f"the guide failed: {self._matcher.get_error()}", param="guide")


class GuideCompiler:
    """Compiles guides for one tokenizer and keeps the latest. Safe to use from any thread."""

    def __init__(self, tokenizer_json: str, vocabulary: int, end_tokens: Sequence[int]) -> None:
        self._tokenizer = LLTokenizer(tokenizer_json, n_vocab=vocabulary, eos_token=list(end_tokens))
        self._vocabulary = vocabulary
        self._lock = Lock()
        self._matchers: OrderedDict[str, LLMatcher] = OrderedDict()

    def compile(self, guide: Guide) -> RowGuide:
        """A fresh guide; raises InvalidGuide with llguidance's own words."""
        grammar = _grammar(guide)
        with self._lock:
            matcher = self._matchers.get(grammar)
            if matcher is not None:
                self._matchers.move_to_end(grammar)
        if matcher is None:
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
            if matcher.is_error():
                raise InvalidGuide(f"the guide cannot be used: {matcher.get_error()}", param="guide")
            with self._lock:
                self._matchers[grammar] = matcher
                if len(self._matchers) > _KEPT:
                    self._matchers.popitem(last=False)
        return RowGuide(matcher.deep_copy(), self._vocabulary)


def _grammar(guide: Guide) -> str:
    said = [part for part in _PARTS if getattr(guide, part) is not None]
    if len(said) != 1:
        raise InvalidGuide(f"a guide needs exactly one of {', '.join(_PARTS)}", param="guide")
    if guide.regex is not None:
        return LLMatcher.grammar_from_regex(guide.regex)
    if guide.choice is not None:
        return grammar_from("choice", json.dumps(guide.choice))
    try:
        if guide.grammar is not None:
            return grammar_from("grammar", guide.grammar)
        return LLMatcher.grammar_from_json_schema(json.dumps(guide.json_schema), overrides=_JSON_STYLE)
    except ValueError as error:
        what = "JSON schema" if guide.grammar is None else "grammar"
        raise InvalidGuide(f"the {what} cannot be used: {error}", param="guide") from error
