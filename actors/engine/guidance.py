"""Guided decoding with llguidance: by JSON schema, regular expression, choice or grammar."""

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
from orchestration.json_schema import check_references, without_free_names, without_patterns
from orchestration.messages import GuidedDecoding

_JSON_STYLE: Any = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": True,
    "lenient": True,
}
"""Fixed whitespace in JSON: a small model that may choose it can produce whitespace forever. Schema keywords
that the grammar does not support are reported as relaxed and checked afterwards (`conformance.py`)."""
_MAX_REASON = 300
"""Maximum characters of llguidance's message in an error."""

_PARTS = ("json_schema", "regex", "choice", "grammar")

_MAX_MATCHERS = 64
"""Maximum compiled guides in the cache; a role sends the same schema with each step."""


class GuideState:
    """The state of one generation in its guide."""

    __slots__ = ("_bits", "_matcher", "relaxed")

    def __init__(self, matcher: LLMatcher, vocabulary: int, relaxed: tuple[str, ...] = ()) -> None:
        """`relaxed` names the parts of the schema that the grammar does not enforce."""
        self._matcher = matcher
        self.relaxed = relaxed
        self._bits = np.zeros((vocabulary + 31) // 32, np.int32)

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits [vocabulary] of tokens that the guide forbids to minus infinity."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little", count=len(logits))
        allowed = np.flatnonzero(bits)
        allowed_logits = logits[allowed]
        logits.fill(-np.inf)
        logits[allowed] = allowed_logits

    def advance(self, token: int) -> bool:
        """Accept `token`. Returns whether the guide is complete and allows no further token."""
        self._matcher.consume_token(token)
        self._check()
        return self._matcher.is_stopped()

    def consume(self, tokens: NDArray[np.int64]) -> bool:
        """Accept earlier tokens as `advance` does. Raises `InvalidGuide` if they do not conform."""
        if len(tokens):
            self._matcher.consume_tokens(tokens.tolist())
            self._check()
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InvalidGuide(f"the guide failed: {_reason(self._matcher.get_error())}", param="guide")


class GuideCompiler:
    """Compiles guides for one tokenizer and keeps the latest. Safe to use from any thread."""

    def __init__(self, tokenizer_json: str, vocabulary: int, end_tokens: Sequence[int]) -> None:
        self._tokenizer = LLTokenizer(tokenizer_json, n_vocab=vocabulary, eos_token=list(end_tokens))
        self._vocabulary = vocabulary
        self._lock = Lock()
        self._matchers: OrderedDict[str, tuple[LLMatcher, tuple[str, ...]]] = OrderedDict()

    def compile(self, guide: GuidedDecoding) -> GuideState:
        """A fresh guide; raises InvalidGuide saying what is wrong with it."""
        key = guide.model_dump_json(include=set(_PARTS))
        with self._lock:
            made = self._matchers.get(key)
            if made is not None:
                self._matchers.move_to_end(key)
        if made is None:
            made = self._compiled(guide)
            with self._lock:
                self._matchers[key] = made
                if len(self._matchers) > _MAX_MATCHERS:
                    self._matchers.popitem(last=False)
        matcher, relaxed = made
        return GuideState(matcher.deep_copy(), self._vocabulary, relaxed)

    def _compiled(self, guide: GuidedDecoding) -> tuple[LLMatcher, tuple[str, ...]]:
        """The matcher, and the parts of the schema that it does not enforce."""
        if guide.json_schema is None:
            return self._matcher(_grammar(guide)), ()
        check_references(guide.json_schema)
        schema, patterns = _supported(guide.json_schema)
        grammar = _grammar(guide.model_copy(update={"json_schema": schema}))
        matcher = self._matcher(grammar)
        warnings = LLMatcher.validate_grammar_with_warnings(grammar, self._tokenizer)[1]
        relaxed = [_unsupported_keywords(warning) for warning in warnings]
        return matcher, (*relaxed, *(f"pattern {pattern[:80]}" for pattern in patterns))

    def _matcher(self, grammar: str) -> LLMatcher:
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise InvalidGuide(f"invalid guide: {_reason(matcher.get_error())}", param="guide")
        return matcher


def text_or_json(schema: dict[str, Any], field: str) -> GuidedDecoding:
    """A guide to JSON of the object `schema`, or to any text that does not begin with a brace."""
    json_form = json.dumps(_supported(schema)[0] | {"x-guidance": _JSON_STYLE})
    lines = (
        "%llguidance {}",
        "start: json | text",
        f"json: %json {json_form}",
        r"text: /([^{](.|\n)*)?/",
        "",
    )
    return GuidedDecoding(grammar="\n".join(lines), field=field)


def _supported(schema: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The part of the schema that a grammar can enforce, and the patterns that it cannot."""
    return without_patterns(without_free_names(schema), _usable)


def _grammar(guide: GuidedDecoding) -> str:
    given = [part for part in _PARTS if getattr(guide, part) is not None]
    if len(given) != 1:
        raise InvalidGuide(f"a guide must have exactly one of {', '.join(_PARTS)}", param="guide")
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
        raise InvalidGuide(f"invalid {what}: {_reason(str(error))}", param="guide") from error


def _usable(pattern: str) -> bool:
    """Whether a grammar supports the regular expression (look-around is not supported)."""
    return not LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(pattern))


def _unsupported_keywords(warning: str) -> str:
    """A warning of llguidance as JSON Schema keywords."""
    names = warning.partition("Unimplemented keys: ")[2]
    if names:
        return ", ".join(json.loads(names))
    return "oneOf (enforced as anyOf)" if warning.startswith("oneOf") else warning[:_MAX_REASON]


def _reason(words: str) -> str:
    """llguidance's message without the dump of its grammar."""
    return " ".join(words.partition("<state>")[0].split())[:_MAX_REASON]
