"""Tool calls of a local model, by guided decoding.

A generation that must call a tool is guided to write the call as JSON. With `auto` it is guided to write a
call or a text; the first character decides, as a text cannot begin with a brace. If the caller guides the
answer as well, `auto` calls nothing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from secrets import token_hex
from typing import Any

from actors.backends.base import Output
from actors.engine.guidance import text_or_json
from orchestration.errors import BackendFailed, InvalidGuide, InvalidRequest
from orchestration.json_schema import check_references, relocate
from orchestration.messages import (
    ChatMessage,
    Finish,
    Generation,
    GuidedDecoding,
    Sampling,
    TextDelta,
    TextGeneration,
    Tool,
    ToolCall,
    ToolOffer,
)

_CLOSED = {"additionalProperties": False}


def with_call_guide(generation: TextGeneration) -> TextGeneration:
    """The generation with the guide and the prompt for its tools. Raises `InvalidRequest` for invalid
    tools."""
    if generation.kind != "chat" or generation.offer is None:
        return generation
    offer = generation.offer
    if offer.choice == "auto":
        if generation.guide is not None:
            return generation
        changes = {
            "messages": _with_functions(generation.messages, offer),
            "guide": text_or_json(_schema(offer.chosen), "tools"),
        }
        return generation.model_copy(update=changes)
    if (
        generation.guide is not None and generation.guide.field != "response_format"
    ):  # it applies to texts only
        field = generation.guide.field or "guide"
        raise InvalidRequest(
            f"{field} cannot be combined with a tool call, which has the form of the function's parameters",
            param=field,
        )
    schema = _schema(offer.chosen)
    return generation.model_copy(
        update={
            "messages": _with_functions(generation.messages, offer),
            "guide": GuidedDecoding(json_schema=schema, field="tools"),
            # the guide ends the call; a stop string must not end an argument
            "sampling": generation.sampling.model_copy(update={"stop": (), "stop_token_ids": None}),
            "continuation": None,  # a call that another node began was not read: it is written again
        }
    )


def guide_error(generation: TextGeneration, error: InvalidGuide) -> InvalidRequest:
    """The error for an invalid guide, which may have been made from functions."""
    if generation.kind != "chat" or generation.offer is None:
        return error
    return InvalidRequest(f"the parameters of a function: {error.message}", param="tools")


def parse_outputs(outputs: AsyncIterator[Output], generation: Generation) -> AsyncIterator[Output]:
    """The outputs of the guided `generation`, as text or as a tool call."""
    if generation.kind != "chat" or generation.offer is None:
        return outputs
    if generation.offer.choice == "auto":
        if generation.guide is not None:
            return outputs
        return _as_text_or_call(outputs, generation.sampling, is_text=bool(generation.prefix))
    return parse_call_outputs(outputs)


async def _as_text_or_call(
    outputs: AsyncIterator[Output], sampling: Sampling, *, is_text: bool
) -> AsyncIterator[Output]:
    """`is_text`: the answer is known to be a text: another node began it, and calls are sent whole."""
    stops = "stop" if sampling.stop else "stop_token_ids" if sampling.stop_token_ids else ""
    async for output in outputs:
        if not is_text and isinstance(output, TextDelta) and output.text:
            is_text = True
            if output.text.startswith("{"):
                async for part in parse_call_outputs(_after(output, outputs), stops):
                    yield part
                return
        yield output


async def _after(first: Output, outputs: AsyncIterator[Output]) -> AsyncIterator[Output]:
    yield first
    async for output in outputs:
        yield output


async def parse_call_outputs(outputs: AsyncIterator[Output], stops: str = "") -> AsyncIterator[Output]:
    """The tool call at the end of a guided generation; before it, empty deltas as signs of life. If the text
    was cut off, the call has the arguments so far. `stops`: the caller's field that may have ended it."""
    text: list[str] = []
    async for output in outputs:
        if isinstance(output, TextDelta):
            text.append(output.text)
            yield TextDelta(text="", tokens=0)
        elif isinstance(output, Finish):
            call = parse_call("".join(text), whole=output.reason == "stop", stops=stops)
            reason = "tool_calls" if output.reason == "stop" else output.reason
            yield Finish(reason=reason, usage=output.usage, calls=(call,) if call else (), notes=output.notes)
        else:
            yield output


def parse_call(text: str, *, whole: bool, stops: str = "") -> ToolCall | None:
    """The call in `text`; None if it was cut off before its arguments. Raises `BackendFailed` if a `whole`
    text is not a call, or `InvalidRequest` if the caller's field `stops` may have cut it."""
    name, separator, arguments = text.removeprefix('{"name": "').partition('", "arguments": ')
    if whole:
        try:
            parsed = json.loads(text)
            name, arguments = parsed["name"], json.dumps(parsed["arguments"], ensure_ascii=False)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if stops:
                raise InvalidRequest(
                    f"{stops} ended a tool call before its end; leave it out when you send tools",
                    param=stops,
                ) from error
            raise BackendFailed("the model wrote an invalid tool call") from error
    elif not separator:
        return None
    return ToolCall(id=f"call_{token_hex(12)}", name=name, arguments=arguments)


def render(message: ChatMessage) -> ChatMessage:
    """The message with its tool calls as text, for templates without tool calls."""
    if not message.tool_calls:
        return message
    calls = [
        f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}' for call in message.tool_calls
    ]
    return ChatMessage(
        role=message.role, content="\n".join(filter(None, (message.content, *calls))), name=message.name
    )


def _schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """The schema of a call of any of `tools`. Their parameters move below `$defs`, references included."""
    forms: list[dict[str, Any]] = []
    parameters: dict[str, dict[str, Any]] = {}
    for number, tool in enumerate(tools):
        place = f"#/$defs/{number}"
        try:
            check_references(tool.parameters)
            parameters[str(number)] = relocate(tool.parameters, place)
        except InvalidGuide as error:
            raise InvalidRequest(
                f"tools[{number}].function.parameters ({tool.name}): {error.message}",
                param=f"tools[{number}].function.parameters",
            ) from error
        properties = {"name": {"const": tool.name}, "arguments": {"$ref": place}}
        forms.append({"type": "object", "properties": properties, "required": [*properties], **_CLOSED})
    return (forms[0] if len(forms) == 1 else {"anyOf": forms}) | {"$defs": parameters}


def _with_functions(messages: tuple[ChatMessage, ...], offer: ToolOffer) -> tuple[ChatMessage, ...]:
    """The messages with the functions described in the system message, which is added if missing."""
    functions = "\n".join(
        json.dumps(tool.model_dump(include={"name", "description", "parameters"}), ensure_ascii=False)
        for tool in offer.chosen
    )
    form = '{"name": the function, "arguments": its arguments}'
    if offer.choice == "auto":
        instructions = (
            f"You can call functions. These are there:\n{functions}\n\n"
            f"To call one, reply with nothing but the call as JSON: {form}\n"
            "Where none of them helps, or when its result is there, answer in plain words."
        )
    else:
        instructions = (
            f"You call functions. These are there:\n{functions}\n\nReply with one call as JSON: {form}"
        )
    if messages and messages[0].role == "system":
        first = messages[0].model_copy(update={"content": f"{messages[0].content}\n\n{instructions}"})
        return (first, *messages[1:])
    return (ChatMessage(role="system", content=instructions), *messages)
