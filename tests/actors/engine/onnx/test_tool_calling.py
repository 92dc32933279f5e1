"""Tool calls that the real model is guided to write."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.backends.base import Output
from actors.engine.onnx_backend import OnnxBackend
from actors.engine.tool_calling import parse_call, parse_outputs, render
from orchestration.errors import BackendFailed, InvalidRequest
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    Continuation,
    Finish,
    GuidedDecoding,
    TextDelta,
    Tool,
    ToolCall,
    ToolOffer,
    Usage,
)
from tests.actors.engine.onnx.asking import ask, chat

UNIT = {"type": "object", "properties": {"unit": {"$ref": "#/$defs/unit"}}, "required": ["unit"]}
WEATHER = Tool(
    name="get_weather",
    description="the weather in a city",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 24},
            "days": {"type": "integer", "maximum": 9},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
)
CLOCK = Tool(name="get_time", parameters={**UNIT, "$defs": {"unit": {"enum": ["hours", "seconds"]}}})


def offering(*tools: Tool, text: str = "How is the weather in Paris?", **offer: Any) -> ChatGeneration:
    generation = chat(text, max_tokens=80)
    return generation.model_copy(update={"offer": ToolOffer(tools=tools, **offer)})


async def test_a_named_function_is_called_with_arguments_of_its_schema(backend: OnnxBackend) -> None:
    answer = await ask(backend, offering(WEATHER, CLOCK, choice="named", name="get_weather"))
    assert answer.text == ""
    assert answer.finish.reason == "tool_calls"
    (call,) = answer.finish.calls
    assert call.name == "get_weather"
    assert call.id.startswith("call_")
    arguments = json.loads(call.arguments)
    assert "Paris" in arguments["city"]
    assert isinstance(arguments["days"], int)
    assert answer.finish.usage.completion_tokens > 5


async def test_any_function_is_called_when_one_is_required_and_shared_definitions_hold(
    backend: OnnxBackend,
) -> None:
    answer = await ask(backend, offering(WEATHER, CLOCK, choice="required"))
    assert answer.finish.calls[0].name in ("get_weather", "get_time")
    answer = await ask(backend, offering(CLOCK, choice="required", text="What is the time?"))
    assert json.loads(answer.finish.calls[0].arguments)["unit"] in ("hours", "seconds")


async def test_parameters_refer_to_themselves_and_not_to_the_call(backend: OnnxBackend) -> None:
    parameters = {
        "$id": "https://example.com/tree",
        "type": "object",
        "properties": {
            "v": {"type": "boolean"},
            "w": {"$ref": "#/properties/v"},
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
            "kind": {"$ref": "https://example.com/tree#/$defs/kind"},
            "other": {"$ref": "#named"},
        },
        "required": ["v", "w", "next", "kind", "other"],
        "additionalProperties": False,
        "$defs": {"kind": {"enum": ["leaf", "branch"]}, "number": {"$anchor": "named", "const": 7}},
    }
    other = Tool(name="g", parameters={**UNIT, "$defs": {"kind": {"const": 1}, "unit": {"const": "day"}}})
    tree = Tool(name="f", parameters=parameters)
    (call,) = (await ask(backend, offering(tree, other, choice="named", name="f"))).finish.calls
    # Greedy text may nest until it is cut; what there is of it shows what it is made of.
    assert re.match(r'\{"v": (true|false), "w": (true|false), "next": (null|\{"v")', call.arguments)
    assert '"arguments"' not in call.arguments


async def test_a_call_that_another_node_began_is_written_anew(backend: OnnxBackend) -> None:
    offer = offering(WEATHER, choice="required")
    whole = await ask(backend, offer)
    moved = await ask(backend, offer.model_copy(update={"continuation": Continuation(tokens=3, first_seq=2)}))
    assert moved.finish.calls[0].arguments == whole.finish.calls[0].arguments


async def test_a_call_that_is_cut_off_says_so_and_passes_on_what_there_is(backend: OnnxBackend) -> None:
    generation = offering(WEATHER, choice="required")
    sampling = generation.sampling.model_copy(update={"max_tokens": 16})
    answer = await ask(backend, generation.model_copy(update={"sampling": sampling}))
    assert answer.finish.reason == "length"
    assert [call.name for call in answer.finish.calls] == ["get_weather"]
    assert parse_call('{"name": "get_wea', whole=False) is None


@pytest.mark.parametrize("stops", [{"stop": ("aris", '"')}, {"stop_token_ids": (18,)}])
async def test_what_ends_a_text_ends_no_call_that_must_be_made(
    backend: OnnxBackend, stops: dict[str, Any]
) -> None:
    generation = offering(WEATHER, choice="required")
    sampling = generation.sampling.model_copy(update=stops)
    answer = await ask(backend, generation.model_copy(update={"sampling": sampling}))
    assert answer.finish.reason == "tool_calls"
    json.loads(answer.finish.calls[0].arguments)


async def test_an_end_that_cuts_a_call_which_need_not_be_made_names_its_field() -> None:
    async def written() -> AsyncIterator[Output]:
        yield TextDelta(text='{"name": "get_weather", "argu', tokens=1)
        yield Finish(reason="stop", usage=Usage())

    generation = offering(WEATHER)
    sampling = generation.sampling.model_copy(update={"stop": ("ments",)})
    with pytest.raises(InvalidRequest) as caught:
        async for _ in parse_outputs(written(), generation.model_copy(update={"sampling": sampling})):
            pass
    assert caught.value.param == "stop"


async def test_an_offer_that_cannot_be_taken_is_refused_with_its_field(backend: OnnxBackend) -> None:
    guide = GuidedDecoding(regex="a", field="guided_regex")
    guided = offering(WEATHER, choice="required").model_copy(update={"guide": guide})
    wrong = Tool(name="f", parameters={"type": "object", "properties": {"x": {"type": "wizard"}}})
    loop = Tool(name="f", parameters={"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})
    for generation, param in (
        (offering(wrong), "tools"),
        (guided, "guided_regex"),
        (offering(wrong, choice="required"), "tools"),
        (offering(loop, choice="required"), "tools[0].function.parameters"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await ask(backend, generation)
        assert caught.value.param == param


async def test_the_form_of_texts_keeps_nobody_from_a_call_that_must_be_made(backend: OnnxBackend) -> None:
    guide = GuidedDecoding(json_schema={"type": "object"}, field="response_format")
    answer = await ask(backend, offering(WEATHER, choice="required").model_copy(update={"guide": guide}))
    assert [call.name for call in answer.finish.calls] == ["get_weather"]


async def test_what_a_grammar_cannot_hold_of_parameters_keeps_no_model_from_answering(
    backend: OnnxBackend,
) -> None:
    ahead = {"type": "string", "pattern": "^(?=a)a"}
    odd = {"type": "object", "properties": {"x": ahead, "y": {"type": "array", "uniqueItems": True}}}
    answer = await ask(backend, offering(Tool(name="f", parameters=odd), text="Say hello."))
    assert answer.text or answer.finish.calls


async def test_a_model_that_may_call_is_held_to_a_text_or_a_call(backend: OnnxBackend) -> None:
    answer = await ask(backend, offering(WEATHER, CLOCK, text="What is the capital of France?"))
    if answer.finish.calls:
        assert (answer.text, answer.finish.calls[0].name in ("get_weather", "get_time")) == ("", True)
    else:
        assert answer.text
        assert not answer.text.startswith("{")
        assert answer.finish.reason in ("stop", "length")
    begun = offering(WEATHER).model_copy(
        update={"continuation": Continuation(text="The weather in", tokens=3, first_seq=1)}
    )
    rest = await ask(backend, begun)
    assert rest.text
    assert not rest.finish.calls


@pytest.mark.parametrize(
    ("pieces", "begun", "text", "called"),
    [
        (['{"name": "f", ', '"arguments": {"a": 1}}'], "", "", ['{"a": 1}']),
        (["", '{"name": "f", "arguments": {}}'], "", "", ["{}"]),
        (["Hello ", '{"name": 1}'], "", 'Hello {"name": 1}', []),
        (["{1}", " is a set"], "Well, ", "{1} is a set", []),
        ([], "", "", []),
    ],
)
async def test_the_first_character_tells_a_call_from_a_text(
    pieces: list[str], begun: str, text: str, called: list[str]
) -> None:
    async def outputs() -> AsyncIterator[Output]:
        for piece in pieces:
            yield TextDelta(text=piece)
        yield Finish(reason="stop", usage=Usage())

    generation = offering(WEATHER).model_copy(update={"continuation": Continuation(text=begun)})
    answer = [output async for output in parse_outputs(outputs(), generation)]
    finish = answer[-1]
    assert isinstance(finish, Finish)
    assert "".join(piece.text for piece in answer if isinstance(piece, TextDelta)) == text
    assert [call.arguments for call in finish.calls] == called
    assert finish.reason == ("tool_calls" if called else "stop")


async def test_the_model_reads_its_calls_and_what_came_of_them(backend: OnnxBackend) -> None:
    call = ToolCall(id="c1", name="get_capital", arguments='{"country": "Atlantis"}')
    generation = chat("What is the capital of Atlantis?", max_tokens=2)
    said = ChatMessage(role="assistant", content="", tool_calls=(call,))
    result = ChatMessage(role="tool", content="Poseidonia", tool_call_id="c1")

    async def read(*messages: ChatMessage) -> int:
        both = (*generation.messages, *messages)
        answer = await ask(backend, generation.model_copy(update={"messages": both}))
        return answer.finish.usage.prompt_tokens

    without = said.model_copy(update={"tool_calls": ()})
    assert await read(said, result) > await read(without, result) > await read(without)
    assert render(said).content == '{"name": "get_capital", "arguments": {"country": "Atlantis"}}'


def test_a_whole_call_that_cannot_be_read_is_the_backends_fault() -> None:
    with pytest.raises(BackendFailed):
        parse_call('{"name": "f"}', whole=True)
