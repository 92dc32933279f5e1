"""The tool `calculator` of the reasoning agent."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.messages import Tool, ToolResult
from orchestration.patterns.arithmetic import MAX_CHARACTERS, NotArithmetic, evaluate, format_number
from orchestration.validation import first_problem


class Sum(BaseModel):
    """The tool's arguments."""

    model_config = ConfigDict(extra="forbid")

    expression: str = Field(
        min_length=1, max_length=MAX_CHARACTERS, description="such as 1,234.5 * (2 + 3), 15% of 80, sqrt(2)"
    )


class CalculatorTool:
    """Exact, and bounded in size: a use takes microseconds."""

    tool = Tool(
        name="calculator",
        description="the value of an arithmetic expression",
        parameters=Sum.model_json_schema(),
    )

    async def use(self, arguments: dict[str, Any]) -> ToolResult:
        """`data`: {"value": the number as text}."""
        try:
            value = format_number(evaluate(Sum.model_validate(arguments).expression))
        except ValidationError as error:
            return ToolResult(error=str(first_problem(error)))
        except NotArithmetic as error:
            return ToolResult(error=str(error))
        return ToolResult(text=value, data={"value": value})
