"""Tools and their calls in the words of an upstream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.backends.openai import OpenAISettings
from actors.backends.openai.errors import Upstream
from actors.backends.openai.reader import CompletionReader
from actors.backends.openai.requests import generation_body
from actors.backends.openai.token_count import TokenRatio
from orchestration.errors import BackendFailed
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    Finish,
    TextDelta,
    TextGeneration,
    Tool,
    ToolCall,
    ToolOffer,
)

UPSTREAM = Upstream(host="host:1", api_key_env=None, api_key=None)
TOOL = Tool(name="f", description="does", parameters={"type": "object"})
OFFER = ToolOffer(tools=(TOOL,))
CHAT = ChatGeneration(id="a.1", model="m", messages=(ChatMessage(role="user", content="hi"),), offer=OFFER)


def body_of(**changes: Any) -> dict[str, Any]:
    settings = OpenAISettings(base_url="http://host:1")
    body: dict[str, Any] = json.loads(generation_body(CHAT.model_copy(update=changes), "up", settings))
    return body


def read(*choices: dict[str, Any], generation: TextGeneration = CHAT) -> tuple[list[TextDelta], Finish]:
    reader = CompletionReader(UPSTREAM, generation, TokenRatio())
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


PARIS, ROME = '{"city": "Paris"}', '{"city": "Rome"}'


def part(arguments: Any = None, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return fields | {"function": {key: value for key, value in function.items() if value is not None}}


def a(arguments: Any, **fields: Any) -> dict[str, Any]:
    return part(arguments, "f", id="a", **fields)


def b(arguments: Any, **fields: Any) -> dict[str, Any]:
    return part(arguments, "f", id="b", **fields)


TWO_CALLS: dict[str, list[list[dict[str, Any]]]] = {
    "no index": [[a(PARIS)], [b(ROME)]],
    "null for an index": [[a(PARIS, index=None)], [b(ROME, index=None)]],
    "always index 0": [[a(PARIS, index=0)], [b(ROME, index=0)]],
    "an index that is a text": [
        [a(PARIS[:5], index="0")],
        [b(ROME[:5], index="1")],
        [part(PARIS[5:], index="0"), part(ROME[5:], index="1")],
    ],
    "whole, in one event, without an index": [[a(PARIS), b(ROME)]],
    "an id with every part": [
        [a(PARIS[:5], index=0)],
        [a(PARIS[5:], index=0)],
        [b(ROME[:5], index=1)],
        [b(ROME[5:], index=1)],
    ],
    "only an id with every part": [
        [a(PARIS[:5])],
        [part(PARIS[5:], id="a")],
        [b(ROME[:5])],
        [part(ROME[5:], id="b")],
    ],
    "an empty id after the first": [
        [a("", index=0)],
        [part(PARIS, id="", index=0)],
        [b("", index=0)],
        [part(ROME, id="", index=0)],
    ],
    "nothing after the first but arguments": [
        [a("")],
        [part(PARIS[:3])],
        [part(PARIS[3:])],
        [b("")],
        [part(ROME)],
    ],
    "a null id and name after the first": [
        [a(PARIS[:3], index=0)],
        [{"index": 0, "id": None, "function": {"name": None, "arguments": PARIS[3:]}}],
        [b(ROME, index=1)],
    ],
    "by turns, by their index": [
        [a("", index=0)],
        [b("", index=1)],
        [part(PARIS[:5], index=0)],
        [part(ROME[:5], index=1)],
        [part(PARIS[5:], index=0)],
        [part(ROME[5:], index=1)],
    ],
    "by turns, by their id, all with 0": [
        [a(PARIS[:5], index=0)],
        [b(ROME[:5], index=0)],
        [part(PARIS[5:], index=0, id="a")],
        [part(ROME[5:], index=0, id="b")],
    ],
    "by turns, by their place": [
        [a(""), b("")],
        [part(PARIS[:5]), part(ROME[:5])],
        [part(PARIS[5:]), part(ROME[5:])],
    ],
    "arguments as an object": [[a(json.loads(PARIS), index=0)], [b(json.loads(ROME), index=1)]],
    "an empty object first": [
        [a({}, index=0)],
        [part(PARIS, index=0)],
        [b({}, index=1)],
        [part(ROME, index=1)],
    ],
    "said once more at the end": [[a(PARIS)], [b(ROME)], [a(PARIS), b(ROME)]],
    "an id that comes late": [
        [part("", "f", index=0)],
        [part(PARIS, index=0, id="a")],
        [part(ROME, "f", index=1)],
        [part("", index=1, id="b")],
    ],
    "numbers that begin elsewhere and come the other way round": [[b(ROME, index=7)], [a(PARIS, index=3)]],
}


@pytest.mark.parametrize("events", TWO_CALLS.values(), ids=TWO_CALLS)
def test_two_calls_stay_two_however_their_parts_are_numbered(events: list[list[dict[str, Any]]]) -> None:
    _, finish = read(*(delta(*parts) for parts in events), {"index": 0, "delta": {}, "finish_reason": "stop"})
    assert finish.calls == (
        ToolCall(id="a", name="f", arguments=PARIS),
        ToolCall(id="b", name="f", arguments=ROME),
    )
    assert finish.reason == "tool_calls"


NO_IDS: dict[str, list[list[dict[str, Any]]]] = {
    "whole, in two events": [[part(PARIS, "f")], [part(ROME, "f")]],
    "whole, in one event, all with 0": [[part(PARIS, "f", index=0), part(ROME, "f", index=0)]],
    "objects": [[part(json.loads(PARIS), "f")], [part(json.loads(ROME), "f")]],
    "the name with every part": [
        [part(PARIS[:5], "f")],
        [part(PARIS[5:], "f")],
        [part(ROME[:5], "f")],
        [part(ROME[5:], "f")],
    ],
    "one id for both": [[part(PARIS, "f", id="x", index=0)], [part(ROME, "f", id="x", index=1)]],
    "one id for both and no index": [[part(PARIS, "f", id="x")], [part(ROME, "f", id="x")]],
}


@pytest.mark.parametrize("events", NO_IDS.values(), ids=NO_IDS)
def test_calls_without_ids_of_their_own_get_some(events: list[list[dict[str, Any]]]) -> None:
    _, finish = read(*(delta(*parts) for parts in events))
    assert [(call.name, call.arguments) for call in finish.calls] == [("f", PARIS), ("f", ROME)]
    ids = [call.id for call in finish.calls]
    assert all(ids)
    assert len(set(ids)) == 2


def test_another_functions_name_begins_another_call() -> None:
    _, finish = read(delta(part("", "f", index=0)), delta(part("", "g", index=0)), delta(part(ROME, index=0)))
    assert [(call.name, call.arguments) for call in finish.calls] == [("f", "{}"), ("g", ROME)]


def test_a_call_in_the_words_of_old_is_a_tool_call() -> None:
    _, finish = read(
        {"index": 0, "delta": {"content": None, "function_call": {"name": "f", "arguments": ""}}},
        {"index": 0, "delta": {"function_call": {"arguments": PARIS}}},
        {"index": 0, "delta": {}, "finish_reason": "function_call"},
    )
    assert finish.reason == "tool_calls"
    assert [(call.name, call.arguments, bool(call.id)) for call in finish.calls] == [("f", PARIS, True)]


def test_a_call_that_was_cut_off_keeps_what_came_of_it() -> None:
    _, finish = read(
        delta(a(PARIS[:5], index=0)),
        delta(b("", index=1)),
        {"index": 0, "delta": {}, "finish_reason": "length"},
    )
    assert finish.reason == "length"
    assert [call.arguments for call in finish.calls] == [PARIS[:5], ""]


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
        [{"index": "first"}],
        [{"index": True}],
        [{"index": 0, "id": "c", "function": "f"}],
        [{"index": 0, "function": {"arguments": 5}}],
        [{"index": 0, "function": {"arguments": "x" * 300_000}}],
        [{"id": str(number), "function": {"name": "f"}} for number in range(129)],
    ],
)
def test_calls_that_cannot_be_read_or_never_end_are_the_upstreams_fault(calls: Any) -> None:
    with pytest.raises(BackendFailed, match="host:1"):
        read({"index": 0, "delta": {"tool_calls": calls}})
