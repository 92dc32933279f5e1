"""Messages as stored conversations have them: without content, refused, or in OpenAI's older form."""

from __future__ import annotations

from typing import Any

import pytest
from openai import OpenAI
from pydantic import ValidationError

from actors.gateway.bodies import ChatBody
from orchestration.messages import ChatMessage

HI: dict[str, Any] = {"role": "user", "content": "Hi"}
CALLED: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "function_call": {"name": "add", "arguments": '{"a": 1}'},
}


def read(*messages: dict[str, Any]) -> tuple[ChatMessage, ...]:
    return ChatBody.model_validate({"model": "m", "messages": [*messages]}).messages


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        ({}, ""),
        ({"content": None}, ""),
        ({"content": []}, ""),
        ({"content": None, "tool_calls": []}, ""),
        ({"content": None, "tool_calls": None, "function_call": None, "audio": None}, ""),
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"refusal": None}, ""),
        ({"content": "Said.", "refusal": "I will not."}, "Said."),
        ({"content": [{"type": "refusal", "refusal": "I will not."}]}, "I will not."),
    ],
)
def test_a_turn_of_the_assistant_needs_no_content(turn: dict[str, Any], text: str) -> None:
    assert read(HI, {"role": "assistant"} | turn, HI)[1].content == text


def test_a_stored_conversation_with_an_empty_turn_is_answered(client: OpenAI) -> None:
    messages: Any = [HI, {"role": "assistant", "content": None}, {"role": "user", "content": "Go"}]
    answer = client.chat.completions.create(model="echo", messages=messages)
    assert answer.choices[0].message.content == "Go"


def test_a_function_call_and_its_answer_are_read_as_a_tool_call_and_its_answer() -> None:
    _, call, answer, _ = read(HI, CALLED, {"role": "function", "name": "add", "content": "1"}, HI)
    assert [(made.name, made.arguments) for made in call.tool_calls] == [("add", '{"a": 1}')]
    assert (answer.role, answer.content, answer.tool_call_id) == ("tool", "1", call.tool_calls[0].id)


def test_two_calls_of_one_function_are_answered_in_their_order() -> None:
    answered = {"role": "function", "name": "add", "content": None}
    turns = read(CALLED, CALLED, answered, answered)
    assert [turn.tool_call_id for turn in turns[2:]] == [turns[0].tool_calls[0].id, turns[1].tool_calls[0].id]
    assert turns[2].content == ""


def test_a_function_message_without_its_call_gets_one() -> None:
    _, call, answer = read(HI, {"role": "function", "name": "add", "content": "1"})
    assert (call.role, call.tool_calls[0].name, answer.tool_call_id) == (
        "assistant",
        "add",
        call.tool_calls[0].id,
    )


def test_a_function_call_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="tool_calls"):
        read(HI, CALLED | {"function_call": {"name": "add"}})


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}],
        ["a", {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}],
        [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "ab"}],
        [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "ab"}],
    ],
)
def test_parts_of_text_are_read_in_the_words_of_several_clients(content: list[Any]) -> None:
    _, turn = read(HI, {"role": "assistant", "content": content})
    assert turn.content == "ab"
    assert turn.reasoning == ("hm" if "hm" in str(content) else "")


@pytest.mark.parametrize("kind", ["image_url", None, ["text"], 5])
def test_a_part_that_is_no_text_is_refused_by_its_number(kind: Any) -> None:
    with pytest.raises(ValidationError, match="part 1"):
        read({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind, "text": "b"}]})


@pytest.mark.parametrize(("said", "read_as"), [(None, "{}"), ({"a": 1}, '{"a": 1}'), ('{"a":1}', '{"a":1}')])
def test_arguments_of_calls_may_be_objects_or_null_and_a_tool_may_answer_nothing(
    said: Any, read_as: str
) -> None:
    call = {"id": "c1", "type": None, "function": {"name": "add", "arguments": said}}
    _, turn, answer = read(
        HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": None},
    )
    assert turn.tool_calls[0].arguments == read_as
    assert answer.content == ""


def test_arguments_of_a_call_that_are_neither_are_refused_by_their_field() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": 5}}
    with pytest.raises(ValidationError, match=r"function\.arguments"):
        read(HI, {"role": "assistant", "tool_calls": [call]})


@pytest.mark.parametrize("name", ["prefix", "partial"])
def test_a_message_to_go_on_with_names_the_field_that_does_it(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}.*continue_final_message"):
        read(HI, {"role": "assistant", "content": "He", name: True})
    assert read(HI, {"role": "assistant", "content": "He", name: False})
