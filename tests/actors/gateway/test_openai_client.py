"""OpenAI's own Python client against the gateway, before nodes without models."""

from __future__ import annotations

import asyncio
import json

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from tests.fixtures.cluster import Cluster


def said(text: str) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": text}]


def test_a_chat_is_answered_with_usage_and_with_who_answered(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="echo",
        messages=said("one two three"),
        extra_headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"},
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == "one two three"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        3,
        3,
        6,
    )
    assert answer.model_extra is not None
    orchestra = answer.model_extra["orchestra"]
    assert orchestra["node"] == "fast"
    assert orchestra["trace_id"] == "ab" * 16
    assert raw.headers["X-Orchestra-Run"] == orchestra["run"]
    assert answer.id == f"chatcmpl-{orchestra['run']}"


def test_a_stream_has_one_role_the_text_in_order_an_end_and_usage_when_asked_for(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="slow", messages=said("one two three"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert [chunk.choices[0].delta.role for chunk in chunks if chunk.choices] == [
        "assistant",
        None,
        None,
        None,
    ]
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert texts == ["one", " two", " three", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 3
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_stream_options_ends_with_the_finish_reason(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="echo", messages=said("one two"), stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["orchestra"]["node"] == "fast"


async def test_the_asynchronous_client_holds_many_streams_at_once(cluster: Cluster) -> None:
    async with AsyncOpenAI(base_url=cluster.base_url, api_key="none", max_retries=0) as client:

        async def one(number: int) -> str:
            stream = await client.chat.completions.create(
                model="slow", messages=said(f"{number} a b c"), stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        answers = await asyncio.gather(*(one(number) for number in range(30)))
    assert answers == [f"{number} a b c" for number in range(30)]


def test_max_tokens_under_either_name_and_stop_strings_end_the_answer(client: OpenAI) -> None:
    short = client.chat.completions.create(model="echo", messages=said("a b c d"), max_tokens=2)
    assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("a b", "length")
    newer = client.chat.completions.create(model="echo", messages=said("a b c d"), max_completion_tokens=3)
    assert newer.choices[0].message.content == "a b c"
    stopped = client.chat.completions.create(model="echo", messages=said("a b STOP d"), stop=["STOP"])
    assert (stopped.choices[0].message.content or "").strip() == "a b"
    assert stopped.choices[0].finish_reason == "stop"


def test_text_parts_are_joined_and_the_developer_speaks_as_the_system(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="echo",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
        ],
    )
    assert answer.choices[0].message.content == "one two"


def test_a_json_schema_reaches_the_node(client: OpenAI) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    answer = client.chat.completions.create(
        model="echo",
        messages=said("which city?"),
        response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": schema}},
    )
    assert json.loads(answer.choices[0].message.content or "").keys() == {"city"}
    free = client.chat.completions.create(
        model="echo", messages=said("anything"), response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(free.choices[0].message.content or ""), dict)


def test_log_probabilities_come_in_the_shape_of_chats_and_of_completions(client: OpenAI) -> None:
    chat = client.chat.completions.create(
        model="echo", messages=said("one two"), logprobs=True, top_logprobs=1
    )
    logprobs = chat.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [token.token for token in logprobs.content] == ["one", " two"]
    assert logprobs.content[0].bytes == list(b"one")
    assert logprobs.content[0].top_logprobs[0].token == "one"
    text = client.completions.create(model="echo", prompt="one two", logprobs=1).choices[0].logprobs
    assert text is not None
    assert (text.tokens, text.text_offset) == (["one", " two"], [0, 3])
    assert text.top_logprobs == [{"one": 0.0}, {" two": 0.0}]


def test_log_probabilities_are_streamed_with_their_text(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="slow", messages=said("a b"), logprobs=True, stream=True)
    tokens = [
        token.token
        for chunk in stream
        if (logprobs := chunk.choices[0].logprobs) is not None and logprobs.content
        for token in logprobs.content
    ]
    assert tokens == ["a", " b"]


def test_a_completion_is_answered_whole_and_streamed(client: OpenAI) -> None:
    whole = client.completions.create(model="echo", prompt=["one two"])
    assert whole.choices[0].text == "one two"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 2
    stream = client.completions.create(
        model="echo", prompt="one two", stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "one two"
    assert chunks[-1].usage is not None


def test_embeddings_are_the_same_as_floats_and_as_base64(client: OpenAI) -> None:
    texts = [f"text {number}" for number in range(70)]
    packed = client.embeddings.create(model="echo-embed", input=texts)  # the client asks for base64
    floats = client.embeddings.create(model="echo-embed", input=texts, encoding_format="float")
    assert len(packed.data) == 70
    assert [item.index for item in packed.data] == list(range(70))
    assert packed.data[69].embedding == pytest.approx(floats.data[69].embedding)
    assert packed.data[0].embedding != pytest.approx(packed.data[1].embedding)
    assert packed.usage.prompt_tokens == 140
    alone = client.embeddings.create(model="echo-embed", input="text 69")
    assert alone.data[0].embedding == pytest.approx(floats.data[69].embedding)


def test_models_are_listed_and_found_by_an_id_with_slashes(client: OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"echo", "slow", "vendor/echo.v2", "echo-embed", "orchestra/maestro", "orchestra/single"} <= names
    model = client.models.retrieve("vendor/echo.v2")
    assert model.model_extra is not None
    assert model.model_extra["orchestra"]["nodes"] == ["fast"]
    assert client.models.retrieve("orchestra/maestro").id == "orchestra/maestro"
    with pytest.raises(NotFoundError, match=r"known models: .*echo"):
        client.models.retrieve("vendor/none")


def test_a_model_whose_name_has_dots_and_slashes_answers(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="vendor/echo.v2", messages=said("héllo 世界"))
    assert answer.choices[0].message.content == "héllo 世界"


def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(client: OpenAI) -> None:
    with pytest.raises(
        NotFoundError, match=r"no model 'nope'; known models: .*echo.*orchestra/maestro"
    ) as caught:
        client.chat.completions.create(model="nope", messages=said("hi"))
    assert caught.value.code == "unknown_model"
    assert caught.value.param == "model"
    with pytest.raises(NotFoundError, match="orchestra/single"):
        client.chat.completions.create(model="orchestra/nope", messages=said("hi"))


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers_even_when_streamed(
    client: OpenAI,
) -> None:
    for stream in (False, True):
        with pytest.raises(BadRequestError, match=r"3000 tokens.*2000 tokens") as caught:
            client.chat.completions.create(model="echo", messages=said("word " * 3000), stream=stream)
        assert caught.value.code == "context_length_exceeded"
