"""The tool `python` of the code agent: a program is run in the sandbox, then examples of its use."""

from __future__ import annotations

import ast
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from actors.tools.sandbox.sandbox import CallResult, Sandbox
from actors.tools.sandbox.settings import SandboxSettings
from orchestration.errors import InvalidRequest
from orchestration.messages import Tool, ToolResult
from orchestration.validation import first_problem

MAX_EXAMPLES = 16


class Example(BaseModel):
    """A call, as Python source, and the literal that it should give."""

    model_config = ConfigDict(extra="forbid")

    call: str = Field(min_length=1, max_length=1_000)
    expected: str = Field(default="", max_length=4_000)


class Program(BaseModel):
    """The tool's arguments."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(min_length=1, max_length=20_000, description="a Python program")
    examples: tuple[Example, ...] = Field(default=(), max_length=MAX_EXAMPLES)


TOOL = Tool(
    name="python",
    description="run a Python program (standard library only, no network) and calls of its functions",
    parameters=Program.model_json_schema(),
)


class PythonTool:
    """One for a process."""

    tool = TOOL

    def __init__(self, settings: SandboxSettings) -> None:
        self.sandbox = Sandbox(settings)

    async def use(self, arguments: dict[str, Any]) -> ToolResult:
        """`data`: {"outcomes": [{"value", "error", "passed"} for each example], "output", "error"}."""
        try:
            program = Program.model_validate(arguments)
        except ValidationError as error:
            return ToolResult(error=str(first_problem(error)))
        try:
            ran = await self.sandbox.run(program.code, tuple(each.call for each in program.examples))
        except InvalidRequest as error:
            return ToolResult(error=error.message)
        outcomes = [
            {"value": each.value, "error": each.error, "passed": passed(each, example.expected)}
            for each, example in zip(ran.outcomes, program.examples, strict=True)
        ]
        lines = [
            f"{example.call} → {each.value if each.value is not None else each.error}"
            for each, example in zip(ran.outcomes, program.examples, strict=True)
        ]
        report = [*lines, *([ran.error] if ran.error else []), *([ran.output] if ran.output else [])]
        data = {"outcomes": outcomes, "output": ran.output, "error": ran.error}
        return ToolResult(text="\n".join(report), data=data)


def passed(outcome: CallResult, expected: str) -> bool:
    """Whether a call gave what was expected: the same text, or an equal literal, and of numbers with a point
    such as rounding leaves alike."""
    if outcome.value is None or outcome.error:
        return False
    if outcome.value == expected:
        return True
    try:
        value, wanted = ast.literal_eval(outcome.value), ast.literal_eval(expected.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    if isinstance(value, bool) != isinstance(wanted, bool):
        return False
    if isinstance(value, float | int) and isinstance(wanted, float | int):
        return bool(abs(value - wanted) <= 1e-9 * max(abs(value), abs(wanted)))
    return bool(value == wanted)
