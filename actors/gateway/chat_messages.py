"""The messages of a chat body, validated into `ChatMessage`s."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from actors.gateway.tool_bodies import Calls, check_answers
from orchestration.messages import ChatMessage

_TEXT_PARTS = {"text": "text", "refusal": "refusal", "input_text": "text", "output_text": "text"}
"""The types of content parts, and the field that has the text of each."""
_THOUGHTS = ("thinking", "reasoning")
"""The types of parts with reasoning. The text is in the field of the same name, or in `text`."""


def _text_of(content: Any, info: ValidationInfo) -> Any:
    """Return a message's content as one text; text parts are joined.

    The assistant's content may be missing or null: with tool calls, after a refusal, or after a stream that
    was cut. A tool's content may be null too; it is empty then.
    """
    if isinstance(content, str):
        return content
    if content is None and info.data.get("role") in ("assistant", "tool"):
        return ""
    if content is None:
        raise ValueError("content is needed, as text or a list of text parts")
    if not isinstance(content, list):
        raise ValueError("content must be text or a list of text parts")
    texts: list[str] = []
    for number, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        text = part.get(_TEXT_PARTS[kind]) if isinstance(kind, str) and kind in _TEXT_PARTS else None
        if not isinstance(text, str):
            raise ValueError(f"part {number} of the content has type {kind!r}; only text parts are supported")
        texts.append(text)
    return "".join(texts)


def _role_of(role: Any) -> Any:
    return "system" if role == "developer" else role


def _reasoning_of(reasoning: Any) -> Any:
    return reasoning if isinstance(reasoning, str) else ""


_CONTINUED = ("prefix", "partial")
"""Fields of a message that other servers have for `continue_final_message`."""


class MessageBody(ChatMessage):
    """One message of a conversation. It is sent on unchanged, so that a chat is validated once."""

    role: Annotated[Literal["system", "user", "assistant", "tool"], BeforeValidator(_role_of)]
    tool_calls: Calls = ()
    content: Annotated[
        str, BeforeValidator(_text_of, json_schema_input_type=str | list[dict[str, Any]] | None)
    ] = Field(default=None, validate_default=True)
    reasoning: Annotated[str, BeforeValidator(_reasoning_of)] = ""


def _modernize(messages: Any) -> Any:
    """Convert old forms of OpenAI's API: a refusal becomes the text of its message, a `function_call` a tool
    call, and a message of role `function` the answer of that call."""
    if not isinstance(messages, list):
        return messages
    turns: list[Any] = []
    open_calls: list[tuple[str, str]] = []
    """(name, id) of each `function_call` without an answer so far."""
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            turns.append(message)
        elif message.get("role") == "assistant":
            turns.append(_of_assistant(message, f"call_{number}", open_calls))
        elif message.get("role") == "function":
            turns += _of_function(message, f"call_{number}", open_calls)
        else:
            turns.append(message)
    return turns


def _of_assistant(message: dict[str, Any], call_id: str, open_calls: list[tuple[str, str]]) -> dict[str, Any]:
    for each in _CONTINUED:
        if message.get(each):
            raise ValueError(
                f"{each} of a message is not supported: continue_final_message continues the last one"
            )
    if message.get("reasoning_content"):
        message = message | {"reasoning": message["reasoning_content"]}
    message = _without_thoughts(message)
    if message.get("content") is None and isinstance(message.get("refusal"), str):
        message = message | {"content": message["refusal"]}
    call = message.get("function_call")
    if call is None or message.get("tool_calls"):
        return message
    name = call.get("name") if isinstance(call, dict) else None
    if isinstance(name, str):
        open_calls.append((name, call_id))
    return message | {"tool_calls": [{"id": call_id, "type": "function", "function": call}]}


def _without_thoughts(message: dict[str, Any]) -> dict[str, Any]:
    """Move the parts with reasoning to the message's field `reasoning`."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts, thoughts = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _THOUGHTS:
            thoughts.append(part.get(kind) or part.get("text"))
        else:
            parts.append(part)
    if not thoughts:
        return message
    reasoning = "".join(thought for thought in thoughts if isinstance(thought, str))
    return {"reasoning": reasoning} | message | {"content": parts}


def _of_function(
    message: dict[str, Any], call_id: str, open_calls: list[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Return the message, after the call that it answers if the conversation does not have that call."""
    name = message.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("a message of role function needs the name of the function")
    made: list[dict[str, Any]] = []
    found = next((known for known in open_calls if known[0] == name), None)
    if found is None:
        found = name, call_id
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}
        made.append({"role": "assistant", "tool_calls": [call]})
    else:
        open_calls.remove(found)
    content = "" if message.get("content") is None else message["content"]
    return [*made, {"role": "tool", "tool_call_id": found[1], "content": content}]


def _answering(messages: tuple[MessageBody, ...]) -> tuple[MessageBody, ...]:
    check_answers(messages)
    return messages


ConversationBody = Annotated[tuple[MessageBody, ...], BeforeValidator(_modernize), AfterValidator(_answering)]
