"""Tool calls by OpenAI's own client: of the local model, and of an upstream that speaks the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from actors.backends.openai import OpenAIBackend, OpenAISettings
from actors.engine.onnx_backend import OnnxBackend
from orchestration.messages import ChatGeneration, ChatMessage, Tool, ToolOffer
from orchestration.response_cache import fingerprint
from tests.fixtures.cluster import running_cluster
from tests.fixtures.models import smollm2_folder

MODEL = "smollm2-135m"
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "the weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 24}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
QUESTION: Any = {"role": "user", "content": "How is the weather in Paris?"}


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, OpenAI]]:
    """`local` asks the model itself; `far` asks an Orchestra whose node hands on to that one."""
    with running_cluster([("onnx", OnnxBackend([smollm2_folder()]))]) as near:
        upstream = OpenAIBackend(OpenAISettings(base_url=near.base_url, models={MODEL: MODEL}))
        with (
            running_cluster([("openai", upstream)]) as far,
            OpenAI(base_url=near.base_url, api_key="none", max_retries=0) as local_client,
            OpenAI(base_url=far.base_url, api_key="none", max_retries=0) as far_client,
        ):
            yield {"local": local_client, "far": far_client}


@pytest.mark.parametrize("where", ["local", "far"])
def test_a_function_is_called_and_its_result_is_read(clients: dict[str, OpenAI], where: str) -> None:
    client = clients[where]
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_tokens": 80, "tools": [TOOL]}
    answer = client.chat.completions.create(
        messages=[QUESTION], tool_choice=NAMED, parallel_tool_calls=False, **asked
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    call = (choice.message.tool_calls or [])[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "Paris" in json.loads(call.function.arguments)["city"]
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "It snows in Paris, at -3 C."}
    said: Any = choice.message.model_dump(exclude_none=True, include={"role", "tool_calls"})
    final = client.chat.completions.create(messages=[QUESTION, said, result], tool_choice="none", **asked)
    assert final.choices[0].finish_reason in ("stop", "length")
    assert final.choices[0].message.tool_calls is None
    assert final.choices[0].message.content


@pytest.mark.parametrize("where", ["local", "far"])
def test_a_stream_gives_the_same_call_in_its_deltas(clients: dict[str, OpenAI], where: str) -> None:
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_tokens": 80, "messages": [QUESTION]}
    asked |= {"tools": [TOOL], "tool_choice": "required"}
    whole = clients[where].chat.completions.create(**asked)
    call = (whole.choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    chunks = list(clients[where].chat.completions.create(stream=True, **asked))
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or ()]
    assert {delta.index for delta in deltas} == {0}
    assert deltas[0].id
    assert deltas[0].function is not None
    assert deltas[0].function.name == "get_weather"
    arguments = "".join(delta.function.arguments or "" for delta in deltas if delta.function)
    assert json.loads(arguments) == json.loads(call.function.arguments)
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "tool_calls"
    assert not "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.mark.parametrize("where", ["local", "far"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_may_call_answers_in_text_or_calls(
    clients: dict[str, OpenAI], where: str, stream: bool
) -> None:
    """What every agent client sends: tools, and no tool_choice."""
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_tokens": 80, "tools": [TOOL]}
    for text in ("How is the weather in Paris?", "Say hello."):
        said = clients[where].chat.completions.create(
            messages=[{"role": "user", "content": text}], stream=stream, **asked
        )
        text, calls, reason = streamed(said) if stream else whole(said)
        if reason == "tool_calls":
            assert (text, [name for name, _ in calls]) == ("", ["get_weather"])
            assert set(json.loads(calls[0][1])) == {"city", "unit"}
        else:
            assert text
            assert not text.startswith("{")
            assert not calls


def whole(answer: Any) -> tuple[str, list[tuple[str, str]], str]:
    choice = answer.choices[0]
    calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
    return choice.message.content or "", calls, choice.finish_reason


def streamed(chunks: Any) -> tuple[str, list[tuple[str, str]], str]:
    choices = [chunk.choices[0] for chunk in chunks]
    calls = [call for choice in choices for call in choice.delta.tool_calls or ()]
    text = "".join(choice.delta.content or "" for choice in choices)
    return text, [(call.function.name, call.function.arguments) for call in calls], choices[-1].finish_reason


def test_the_callers_guide_is_the_answer_of_a_model_that_may_call(clients: dict[str, OpenAI]) -> None:
    answer = clients["local"].chat.completions.create(
        model=MODEL, messages=[QUESTION], tools=[TOOL], extra_body={"guided_choice": ["sun", "rain"]}
    )
    assert answer.choices[0].message.content in ("sun", "rain")


def test_responses_are_cached_by_their_tools_and_tool_choice() -> None:
    plain = ChatGeneration(id="a.1", model="m", messages=(ChatMessage(role="user", content="hi"),))
    tool, other = Tool(name="f"), Tool(name="g")
    offers = (
        None,
        ToolOffer(tools=(tool,)),
        ToolOffer(tools=(other,)),
        ToolOffer(tools=(tool,), choice="required"),
        ToolOffer(tools=(tool,), choice="named", name="f"),
        ToolOffer(tools=(tool,), parallel=False),
    )
    keys = {fingerprint(plain.model_copy(update={"offer": offer}), "n") for offer in offers}
    assert len(keys) == len(offers)
