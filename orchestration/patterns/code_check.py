"""Checks a Python program in an answer: whether it parses, and what examples the request gives for it."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestration.patterns.clipping import truncate
from orchestration.patterns.consensus.examples import MAX_EXAMPLES, ProgramExample, examples_of

_FENCE = re.compile(r"```[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n(?P<code>.*?)(?:```|\Z)", re.DOTALL)
_PYTHON = frozenset(("python", "py", "python3"))
_LOOKS_PYTHON = re.compile(r"^(?:def \w+\(|class \w+|import \w+|from \w+ import )", re.MULTILINE)
_INPUT_OUTPUT = re.compile(
    r"\binput\b\s*:?\s*`?(?P<given>[^\n`]{1,200}?)`?\s*(?:\n|,|;|->|→|=>)+\s*(?:expected\s+)?output\b\s*:?\s*`?(?P<gives>[^\n`]{1,200})",
    re.IGNORECASE,
)
_ASSERT = re.compile(r"^[ \t]*assert[ \t]+(?P<test>[^\n]{1,200})$", re.MULTILINE)
_VALUE_TOKENS = 60
MAX_CODE_CHARS = 20_000


class ExampleOutcome(BaseModel):
    """The result of one example, as the tool `python` reports it."""

    value: str | None = None
    error: str = ""
    passed: bool = False


class ExampleOutcomes(BaseModel):
    """The data of a result of the tool `python`."""

    outcomes: tuple[ExampleOutcome, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class ProgramCheck:
    """A program that was run on `examples`."""

    examples: tuple[ProgramExample, ...]
    outcomes: tuple[ExampleOutcome, ...]

    @property
    def key(self) -> str:
        """The results of all examples, which are the same for programs that do the same."""
        return json.dumps([(outcome.value, outcome.error) for outcome in self.outcomes])

    @property
    def pass_rate(self) -> float:
        """The share of the examples that pass."""
        return self.passed / len(self.examples)

    @property
    def passed(self) -> int:
        return sum(outcome.passed for outcome in self.outcomes)

    @property
    def failures(self) -> list[str]:
        """One line for each example that failed."""
        return [
            f"{example.call} should give {example.expected}, and "
            + (
                f"gives {truncate(outcome.value, _VALUE_TOKENS)}"
                if outcome.value is not None
                else f"fails: {truncate(outcome.error, _VALUE_TOKENS)}"
            )
            for example, outcome in zip(self.examples, self.outcomes, strict=True)
            if not outcome.passed
        ]


def program_in(text: str) -> str | None:
    """The longest fenced block that is labelled as Python, or looks like Python where it has no label."""
    found = [
        match["code"].strip("\n")
        for match in _FENCE.finditer(text)
        if match["language"].lower() in _PYTHON
        or (not match["language"] and _LOOKS_PYTHON.search(match["code"]))
    ]
    programs = [each for each in found if each.strip() and len(each) <= MAX_CODE_CHARS]
    return max(programs, key=len) if programs else None


def problem_of(code: str) -> str:
    """Why a program does not parse; '' when it does. It is not run."""
    try:
        _parsed(code)
    except SyntaxError as error:
        line = f" in line {error.lineno}: {truncate(error.text or '', 40)}" if error.lineno else ""
        return f"{type(error).__name__}: {error.msg}{line}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"it cannot be parsed: {error or 'too deep'}"
    return ""


def examples_for(request: str, code: str) -> tuple[ProgramExample, ...]:
    """The examples that the request gives for `code`: those of `examples_of`; `assert is_prime(7)` without a
    literal; and `Input: 2` with `Output: 4`, taken as a call of the last function of the program."""
    found = {example.call: example for example in examples_of(request)}
    for match in _ASSERT.finditer(request):
        call, expected = _asserted(match["test"])
        if call and call not in found:
            found[call] = ProgramExample(call, expected)
    name = _function(code)
    for match in _INPUT_OUTPUT.finditer(request) if name else ():
        given, gives = _literal(match["given"]), _literal(match["gives"])
        if given is not None and gives is not None:
            found.setdefault(f"{name}({given})", ProgramExample(f"{name}({given})", gives))
    return tuple(found.values())[:MAX_EXAMPLES]


def program_check(examples: Sequence[ProgramExample], data: Any) -> ProgramCheck | None:
    """The check that the tool's data describe; None where they do not fit the examples."""
    try:
        outcomes = ExampleOutcomes.model_validate(data).outcomes
    except ValidationError:
        return None
    return ProgramCheck(tuple(examples), outcomes) if len(outcomes) == len(examples) else None


def _parsed(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in strings
        return ast.parse(code)


def _asserted(test: str) -> tuple[str, str]:
    """The call that an `assert` wants to be true, or false after `not`, and that value; '' for anything
    else."""
    try:
        tree = ast.parse(test.strip().strip("`"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "", ""
    match tree:
        case ast.Call(func=ast.Name()):
            return ast.unparse(tree), "True"
        case ast.UnaryOp(op=ast.Not(), operand=ast.Call(func=ast.Name()) as call):
            return ast.unparse(call), "False"
    return "", ""


def _function(code: str) -> str:
    """The last function at the top level of a program; '' where there is none."""
    try:
        body = _parsed(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    names = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    return names[-1] if names else ""


def _literal(text: str) -> str | None:
    """A literal as source; several literals with commas between them are several arguments."""
    text = text.strip().rstrip(".")
    try:
        ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return text
