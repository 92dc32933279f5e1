"""`tools` and related fields of a chat body: validated and converted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import to_json

from orchestration.errors import InvalidRequest
from orchestration.messages import ChatMessage, Tool, ToolCall, ToolOffer
from orchestration.validation import TextForm

MAX_TOOLS = 128
MAX_TOOLS_BYTES = 131_072
"""Maximum size of all tools of a request as JSON."""
ToolName = Annotated[str, TextForm.name("_-", 64)]


def _parameters_of(parameters: Any) -> Any:
    if isinstance(parameters, dict) and parameters.get("type", "object") not in ("object", ["object"]):
        raise ValueError("the parameters of a function must be of type 'object'")
    return parameters


class FunctionBody(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    name: ToolName
    description: str | None = None
    parameters: Annotated[dict[str, Any] | None, BeforeValidator(_parameters_of)] = None
    strict: bool | None = None


class ToolBody(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["function"] = "function"
    function: FunctionBody


def _choice_of(choice: Any) -> Any:
    """Return the word, or `{"name": …}` of a function."""
    if choice is None or choice in ("none", "auto", "required"):
        return choice
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or choice.get("type") != "function":
        raise ValueError(
            'tool_choice must be "none", "auto", "required" or {"type": "function", "function": {"name": …}}'
        )
    return {"name": name}


def _arguments_of(arguments: Any) -> Any:
    """Return the arguments as JSON text. Some clients send the object itself, or null for none."""
    if arguments is None:
        return "{}"
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments


def _calls_of(calls: Any, info: ValidationInfo) -> Any:
    """Validate the tool calls of an assistant's message."""
    if not calls:
        return ()
    if info.data.get("role") != "assistant":
        raise ValueError("only a message of the assistant can have tool_calls")
    if not isinstance(calls, list) or len(calls) > MAX_TOOLS:
        raise ValueError(f"tool_calls must be a list of at most {MAX_TOOLS}")
    made = []
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or call.get("type") not in (None, "function"):
            raise ValueError(f"tool call {number} is not a call of a function")
        arguments = _arguments_of(function.get("arguments", ...))
        if isinstance(call.get("id"), str) and not isinstance(arguments, str):
            raise ValueError(f"tool call {number}: function.arguments must be a text")
        made.append({"id": call.get("id"), "name": function.get("name"), "arguments": arguments})
    return made


Tools = Annotated[tuple[ToolBody, ...], Field(max_length=MAX_TOOLS)]
Choice = Annotated[str | dict[str, str] | None, BeforeValidator(_choice_of)]
Calls = Annotated[tuple[ToolCall, ...], BeforeValidator(_calls_of)]


def offer_of(tools: Sequence[ToolBody] | None, choice: Any, parallel: bool | None) -> ToolOffer | None:
    """Return the tools that the model may call, or None if there are none or `choice` is "none".

    Raises `InvalidRequest`.
    """
    if not tools:
        return None
    size = len(to_json(tools))
    if size > MAX_TOOLS_BYTES:
        raise InvalidRequest(f"tools: {size} bytes; the limit is {MAX_TOOLS_BYTES}", param="tools")
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise InvalidRequest("tools: two functions have the same name", param="tools")
    offered = tuple(_tool(tool.function) for tool in tools)
    if choice == "none":
        return None
    if isinstance(choice, dict):
        if choice["name"] not in names:
            raise InvalidRequest(
                f"tool_choice: no tool {choice['name'][:64]!r} is offered", param="tool_choice"
            )
        return ToolOffer(tools=offered, choice="named", name=choice["name"], parallel=parallel)
    return ToolOffer(tools=offered, choice="required" if choice == "required" else "auto", parallel=parallel)


def check_answers(messages: Sequence[ChatMessage]) -> None:
    """Raise `ValueError` unless each message of role `tool` answers an earlier call of the assistant."""
    made: set[str] = set()
    for number, message in enumerate(messages):
        made.update(call.id for call in message.tool_calls)
        if message.role == "tool" and message.tool_call_id not in made:
            call_id = json.dumps(message.tool_call_id)[:80]
            raise ValueError(f"message {number}: tool_call_id {call_id} is not the id of an earlier call")


def _tool(function: FunctionBody) -> Tool:
    fields: dict[str, Any] = {"name": function.name, "description": function.description or ""}
    if function.parameters is not None:
        fields["parameters"] = function.parameters
    return Tool(**fields, strict=function.strict)
