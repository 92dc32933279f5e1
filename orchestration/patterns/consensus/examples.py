"""The examples in a question of what a program should do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

MAX_EXAMPLES = 16
"""Maximum examples of one question."""
_MAX_CALLS = 64
"""Maximum calls in a text that are examined."""

_CALL = re.compile(r"(?<![\w.])[A-Za-z_]\w*\(")
_GIVES = re.compile(
    r"\s*`?\s*(?:==|=>|->|→|⇒|\n|,?\s*(?:should|must)\s+(?:return|give|be|equal)\b|,?\s*(?:returns?|gives?|"
    r"equals?)\b"
    r"|\s=)\s*`?\s*"
)
_MAX_CHARS = 200
"""Maximum characters of a call, and of its result."""


@dataclass(frozen=True, slots=True)
class ProgramExample:
    """A call and its result. `call` is Python source, such as `f([1, 2])`; `expected` is the `repr` of a
    literal, such as `[2, 1]`."""

    call: str
    expected: str


def examples_of(text: str) -> tuple[ProgramExample, ...]:
    """The first `MAX_EXAMPLES` examples in a text: doctests, `assert f(2) == 4`, `f(2) == 4`, `f(2) -> 4`,
    `f(2) returns 4` and the like. Nothing is run: calls are parsed, and their results must be literals."""
    found: dict[str, ProgramExample] = {}
    for match in islice(_CALL.finditer(text), _MAX_CALLS):
        if len(found) == MAX_EXAMPLES:
            break
        call = _call(text[match.start() : match.start() + _MAX_CHARS])
        if call is None:
            continue
        after = text[match.start() + len(call) :][: 2 * _MAX_CHARS]
        gives = _GIVES.match(after)
        if gives is None or ("\n" in gives[0] and not _prompted(text, match.start())):
            continue
        expected = _literal(after[gives.end() :].split("\n")[0][:_MAX_CHARS])
        if expected is not None:
            found.setdefault(call, ProgramExample(call, expected))
    return tuple(found.values())


def _call(text: str) -> str | None:
    """The shortest prefix of `text` that is a call of a name with literals only."""
    for end in _ends(text, ")"):
        try:
            tree = ast.parse(text[:end], mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            return None
        given = [*tree.args, *(keyword.value for keyword in tree.keywords)]
        return text[:end] if all(_value(ast.unparse(each)) is not None for each in given) else None
    return None


def _literal(text: str) -> str | None:
    """The longest prefix of `text` that is a literal, as its `repr`; a final `.` or `,` does not belong to
    it."""
    for end in range(len(text), 0, -1):
        value = None if text[:end].rstrip().endswith((",", ".")) else _value(text[:end])
        if value is not None:
            return value
    return None


def _value(source: str) -> str | None:
    try:
        return repr(ast.literal_eval(source.strip()))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _ends(text: str, mark: str) -> Iterator[int]:
    """The lengths of the prefixes of `text` that end with `mark`."""
    for match in re.finditer(re.escape(mark), text):
        yield match.end()


def _prompted(text: str, at: int) -> bool:
    """Whether the line of `at` begins with a doctest's prompt, so that the next line is the result."""
    return text[:at].rpartition("\n")[2].strip().startswith(">>>")
