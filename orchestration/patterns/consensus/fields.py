"""Reads the answer field of a JSON answer, also of broken JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

NAMES = (
    "finalanswer",
    "correctanswer",
    "answer",
    "finalresult",
    "result",
    "correctoption",
    "selectedoption",
    "choice",
    "option",
    "antwort",
    "réponse",
    "reponse",
    "respuesta",
    "risposta",
    "resposta",
    "antwoord",
    "label",
    "prediction",
    "verdict",
    "solution",
)
"""Names of fields that hold the answer, without case, spaces and underscores; the first one wins."""

_MAX_OBJECTS = 16
"""Maximum objects of one text that are read, from its beginning and from its end."""
_MAX_DEPTH = 4
_MAX_CHARS = 2_000
"""Maximum characters of one value."""

_SPELT = "|".join(
    sorted(
        (
            r"final[ _-]?answer",
            r"correct[ _-]?answer",
            r"final[ _-]?result",
            r"correct[ _-]?option",
            r"selected[ _-]?option",
            *(name for name in NAMES if not name.startswith(("final", "correct", "selected"))),
        ),
        key=len,
        reverse=True,
    )
)
_FIELD = re.compile(rf"""["'“](?:{_SPELT})["'”]\s*:\s*""", re.IGNORECASE)
_STRING_END = re.compile(r"""(?<!\\)["”](?=\s*(?:[,}\]]|$|\n))|(?<!\\)["”]""")
_PLAIN_END = re.compile(r"[,}\]\n]")
_BAD_ESCAPE = re.compile(r'\\(?!["\\/bfnrtu])')
_EATEN = (
    ("\x0c", r"\f"),
    ("\x08", r"\b"),
    (re.compile(r"\t(?=imes|ext|an\b|heta|frac|binom|o\b)"), r"\\t"),
    (re.compile(r"\r(?=ight|ho\b|angle)"), r"\\r"),
    (re.compile(r"\n(?=eq\b|u\b|abla|otin)"), r"\\n"),
)
"""What JSON makes of a single backslash of LaTeX: `\\frac` becomes a form feed and `rac`."""


def answer_fields(text: str) -> Iterator[tuple[int, str]]:
    """The position and text of each answer field: of whole JSON objects, else of what looks like one."""
    decoder = json.JSONDecoder(strict=False)
    found, end = False, 0
    for start in _starts(text):
        if start < end:
            continue
        value, stop = _decoded(decoder, text, start)
        if not isinstance(value, dict):
            continue
        end = stop
        wording = _answer_of(value)
        if wording is not None:
            found = True
            yield stop, wording
    if not found:
        yield from _broken(text)


def whole_json(text: str) -> Any | None:
    """The JSON object or array that the whole of `text` is, without a fence around it; None where it is not
    one."""
    bare = re.sub(r"\A\s*```[ \t]*\w*\s*\n|\n?\s*```\s*\Z", "", text).strip()
    if not bare.startswith(("{", "[")):
        return None
    try:
        return json.loads(bare, strict=False)
    except (ValueError, RecursionError):
        return None


def _starts(text: str) -> list[int]:
    starts = [match.start() for match in re.finditer(r"\{(?=\s*[\"'}])", text)]
    if len(starts) <= 2 * _MAX_OBJECTS:
        return starts
    return starts[:_MAX_OBJECTS] + starts[-_MAX_OBJECTS:]


def _decoded(decoder: json.JSONDecoder, text: str, start: int) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        pass
    escaped = _BAD_ESCAPE.sub(r"\\\\", text[start:])
    try:
        value, _ = decoder.raw_decode(escaped)
    except (ValueError, RecursionError):
        return None, start
    return value, len(text)


def _answer_of(value: dict[str, Any], depth: int = 0) -> str | None:
    by_name = {re.sub(r"[\s_-]+", "", name.casefold()): wording for name, wording in value.items()}
    for name in NAMES:
        if name in by_name:
            return _written(by_name[name], depth)
    if len(value) == 1 and not depth:
        only = next(iter(value.values()))
        return _written(only, depth) if not isinstance(only, list) else None
    if depth:  # parts of an answer, such as `{"glasses": 86, "plates": 42}`
        parts = [_written(each, depth + 1) for each in value.values() if not isinstance(each, dict | list)]
        return ", ".join(part for part in parts if part is not None) or None
    return None


def _written(wording: Any, depth: int) -> str | None:
    if isinstance(wording, dict):
        return _answer_of(wording, depth + 1) if depth < _MAX_DEPTH else None
    if isinstance(wording, list):
        parts = [_written(each, depth + 1) for each in wording] if depth < _MAX_DEPTH else []
        return ", ".join(part for part in parts if part is not None) or None
    if wording is None:
        return None
    if isinstance(wording, bool):
        return "yes" if wording else "no"
    return restore_backslashes(str(wording)).strip()[:_MAX_CHARS] or None


def restore_backslashes(text: str) -> str:
    """The text with the backslashes of LaTeX that JSON took for escapes."""
    for eaten, written in _EATEN:
        text = text.replace(eaten, written) if isinstance(eaten, str) else eaten.sub(written, text)
    return text.replace("\\\\", "\\")


def _broken(text: str) -> Iterator[tuple[int, str]]:
    for match in [*_FIELD.finditer(text)][-_MAX_OBJECTS:]:
        rest = text[match.end() : match.end() + _MAX_CHARS]
        quote = rest[:1]
        if quote in ('"', "“"):
            end = _STRING_END.search(rest, 1)
            wording = rest[1 : end.start()] if end else rest[1:]
        elif quote == "'":
            end = re.search(r"'(?=\s*[,}\]])", rest[1:])
            wording = rest[1 : 1 + end.start()] if end else rest[1:]
        else:
            end = _PLAIN_END.search(rest)
            wording = rest[: end.start()] if end else rest
        wording = restore_backslashes(
            wording.replace('\\"', '"').replace("\\n", "\n") if "\\neq" not in wording else wording
        ).strip()
        if wording and wording not in ("{", "[", "___"):
            yield match.start(), wording
