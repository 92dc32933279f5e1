"""Checks a finished answer against the parts of a JSON schema that a grammar cannot enforce.

The answer is buffered until then, so that a stream never carries text that is corrected later.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import regex
from jsonschema import Draft7Validator, Draft202012Validator, SchemaError, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend

from actors.backends.base import Output
from orchestration.errors import InvalidGuide
from orchestration.json_schema import Schema, subschemas
from orchestration.messages import ChatMessage, Finish, TextDelta, TextGeneration, TokenLogprob

PATTERN_TIMEOUT_S = 0.2
"""Time limit of a caller's regular expression; the pattern is not checked beyond it."""
MAX_COMPLAINT = 300
"""Maximum characters of a violation in prompts and errors."""

Retry = Callable[[str, str], AsyncGenerator[Output, None] | None]
"""Takes an answer and its violation, and asks the model again; None if that is not possible."""


def _pattern(validator: Any, pattern: str, text: Any, schema: Schema) -> Any:
    if not isinstance(text, str):
        return
    try:
        met = regex.search(pattern, text, timeout=PATTERN_TIMEOUT_S)
    except (regex.error, TimeoutError):
        return  # not a regular expression of Python, or too slow: not checked
    if met is None:
        yield ValidationError(f"{text[:80]!r} does not match {pattern[:80]!r}")


_Today = extend(Draft202012Validator, {"pattern": _pattern})
_Older = extend(Draft7Validator, {"pattern": _pattern})
"""Validator for drafts in which `items` may be a list."""


class SchemaCheck:
    """Checks answers against the whole schema. Runs long enough to need a thread."""

    def __init__(self, schema: Schema) -> None:
        """Raises `InvalidGuide` for an invalid schema."""
        is_older = any(isinstance(each.get("items"), list) for each in subschemas(schema))
        kind: Any = _Older if is_older else _Today
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise InvalidGuide(
                f"{error.json_path}: {error.message}"[:MAX_COMPLAINT], param="guide"
            ) from error
        self._validator = kind(schema)

    def corrected(self, text: str) -> tuple[str, str]:
        """The answer without duplicates in `uniqueItems` arrays, and its remaining violation ("" for
        none)."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return text, f"it is not valid JSON: {error}"
        changed = False
        for found in self._validator.iter_errors(value):
            if found.validator == "uniqueItems":
                changed = _drop_duplicates(_at(value, found.absolute_path)) or changed
        if changed:
            text = json.dumps(value, ensure_ascii=False)
        wrong = best_match(self._validator.iter_errors(value))
        return text, "" if wrong is None else f"{wrong.json_path}: {wrong.message}"[:MAX_COMPLAINT]


async def checked_outputs(
    outputs: AsyncIterator[Output], check: SchemaCheck, relaxed: tuple[str, ...], again: Retry
) -> AsyncIterator[Output]:
    """The checked answer; the model is asked once more if it violates the schema. Notes name what was
    relaxed.

    Empty deltas before it are signs of life.
    """
    notes = tuple(f"not enforced during decoding, checked afterwards: {what}" for what in relaxed)
    text, written, finish = "", "", None
    tokens: tuple[TokenLogprob, ...] = ()
    async for each in _collect(outputs):
        if isinstance(each, _CompleteAnswer):
            text, tokens, finish = each.text, each.logprobs, each.finish
            written = text
        else:
            yield each
    assert finish is not None
    if finish.reason == "stop":
        text, wrong = await asyncio.to_thread(check.corrected, text)
        second = again(text, wrong) if wrong else None
        if second is not None:
            better, usage = "", finish.usage
            async with aclosing(second) as repeated:
                async for each in _collect(repeated):
                    if isinstance(each, _CompleteAnswer):
                        better, finish = each.text, each.finish
                    else:
                        yield each
            better, still_wrong = await asyncio.to_thread(check.corrected, better)
            finish = Finish(reason="stop", usage=usage + finish.usage)
            if not still_wrong:
                text, wrong = better, ""
        if wrong:
            notes = (*notes, f"the answer does not conform: {wrong}")
    if tokens and text != written:
        tokens, notes = (), (*notes, "logprobs were dropped because the answer was corrected")
    yield TextDelta(text=text, tokens=0, logprobs=tokens or None)
    yield Finish(reason=finish.reason, usage=finish.usage, notes=notes)


def correction(
    generation: TextGeneration,
    write: Callable[[TextGeneration], AsyncGenerator[Output, None]],
    answer: str,
    wrong: str,
) -> AsyncGenerator[Output, None] | None:
    """The generation again, with its answer and the violation added; None if it is not a chat."""
    if generation.kind != "chat":
        return None
    request = f"This JSON is wrong: {wrong}. Write all of it again, corrected."
    turns = (ChatMessage(role="assistant", content=answer), ChatMessage(role="user", content=request))
    return write(
        generation.model_copy(update={"messages": (*generation.messages, *turns), "continuation": None})
    )


@dataclass(frozen=True, slots=True)
class _CompleteAnswer:
    """A complete answer."""

    text: str
    logprobs: tuple[TokenLogprob, ...]
    finish: Finish


async def _collect(outputs: AsyncIterator[Output]) -> AsyncIterator[Output | _CompleteAnswer]:
    """Empty deltas as signs of life, then the complete answer."""
    texts: list[str] = []
    logprobs: list[TokenLogprob] = []
    async for output in outputs:
        if isinstance(output, TextDelta):
            texts.append(output.text)
            logprobs.extend(output.logprobs or ())
            yield TextDelta(text="", tokens=output.tokens)
        elif isinstance(output, Finish):
            yield _CompleteAnswer("".join(texts), tuple(logprobs), output)
        else:
            yield output


def _at(value: Any, path: Any) -> Any:
    for part in path:
        value = value[part]
    return value


def _drop_duplicates(items: Any) -> bool:
    """Remove items that are equal to an earlier one. Returns whether there was any."""
    if not isinstance(items, list):
        return False
    names: set[str] = set()
    unique = []
    for item in items:
        name = json.dumps(item, sort_keys=True)
        if name not in names:
            names.add(name)
            unique.append(item)
    changed = len(unique) < len(items)
    items[:] = unique
    return changed
