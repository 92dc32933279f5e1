"""Tools and their calls in the words of an upstream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.node.backends.base import Finish, Piece
from actors.node.backends.openai import OpenAISettings
from actors.node.backends.openai.failures import Upstream
from actors.node.backends.openai.reader import AnswerReader
from actors.node.backends.openai.requests import generation_body
from orchestration.errors import BackendFailed
from orchestration.messages import ChatMessage, Generation, Tool, ToolCall, ToolOffer

UPSTREAM = Upstream(host="host:1", api_key_env=None, api_key=None)
TOOL = Tool(name="f", description="does", parameters={"type": "object"})
OFFER = ToolOffer(tools=(TOOL,))
CHAT = Generation(id="a.1", model="m", messages=(ChatMessage(role="user", content="hi"),), offer=OFFER)


def body_of(**changes: Any) -> dict[str, Any]:
    settings = OpenAISettings(base_url="http://host:1")
    body: dict[str, Any] = json.loads(generation_body(CHAT.model_copy(update=changes), "up", settings))
    return body


def read(*choices: dict[str, Any], generation: Generation = CHAT) -> tuple[list[Piece], Finish]:
    reader = AnswerReader(UPSTREAM, generation)
    events = (reader.take(json.dumps({"choices": [choice]}).encode()) for choice in choices)
    return [event for event in events if event is not None], reader.finish(done=True)


def delta(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"index": 0, "delta": {"tool_calls": list(calls)}, **more}


def test_tools_are_sent_as_they_were_offered() -> None:
    function = {"name": "f", "description": "does", "parameters": {"type": "object"}}
    body = body_of()
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == "auto"
    assert "parallel_tool_calls" not in body
    strict = TOOL.model_copy(update={"strict": True})
    body = body_of(offer=ToolOffer(tools=(strict,), choice="named", name="f", parallel=False))
    assert body["tools"][0]["function"]["strict"] is True
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["parallel_tool_calls"] is False


def test_calls_and_their_results_are_sent_as_messages() -> None:
    call = ToolCall(id="c1", name="f", arguments='{"x": 1}')
    body = body_of(
        messages=(
            *CHAT.messages,
            ChatMessage(role="assistant", content="", tool_calls=(call,)),
            ChatMessage(role="tool", content="4", tool_call_id="c1"),
        )
    )
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
            ],
        },
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]


def test_calls_that_come_in_parts_are_whole_at_the_end_and_text_before_them_flows() -> None:
    pieces, finish = read(
        {"index": 0, "delta": {"role": "assistant", "content": "Let me see."}},
        delta({"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}),
        delta({"index": 0, "function": {"arguments": '{"x":'}}),
        delta({"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}}),
        delta({"index": 0, "function": {"arguments": " 1}"}}),
        {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
    )
    assert [(piece.text, piece.tokens) for piece in pieces] == [("Let me see.", 1), *[("", 0)] * 4]
    assert finish.reason == "tool_calls"
    assert finish.calls == (
        ToolCall(id="c1", name="f", arguments='{"x": 1}'),
        ToolCall(id="c2", name="g", arguments="{}"),
    )


def test_a_server_that_streams_nothing_or_names_no_reason_is_understood() -> None:
    call = {"id": "", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    _, finish = read(
        {"index": 0, "message": {"content": None, "tool_calls": [call]}, "finish_reason": "stop"}
    )
    assert finish.reason == "tool_calls"
    assert finish.calls[0].id.startswith("call_")


def test_calls_that_nobody_offered_are_not_passed_on() -> None:
    alone = CHAT.model_copy(update={"offer": None})
    _, finish = read(
        {"index": 0, "delta": {"content": "hm"}},
        delta({"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}),
        {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
        generation=alone,
    )
    assert (finish.reason, finish.calls) == ("stop", ())


@pytest.mark.parametrize(
    "calls",
    [
        "f",
        [5],
        [{"index": -1}],
        [{"index": 128}],
        [{"index": "0"}],
        [{"index": 0, "function": {"arguments": 5}}],
        [{"index": 0, "function": {"arguments": "x" * 300_000}}],
    ],
)
def test_calls_that_cannot_be_read_or_never_end_are_the_upstreams_fault(calls: Any) -> None:
    with pytest.raises(BackendFailed, match="host:1"):
        read({"index": 0, "delta": {"tool_calls": calls}})
