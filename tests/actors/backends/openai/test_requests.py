"""What is sent to an upstream, what its refusals become, and when it is left alone."""

from __future__ import annotations

import json
from email.utils import formatdate
from typing import Any

import pytest
from pydantic import ValidationError

from actors.backends.openai import OpenAISettings
from actors.backends.openai.backoff import Backoff, retry_after_s
from actors.backends.openai.errors import UnsupportedRoles, Upstream, event_error, response_error
from actors.backends.openai.requests import embedding_body, generation_body
from orchestration.errors import (
    BackendFailed,
    ContextTooLong,
    InvalidGuide,
    InvalidRequest,
    OrchestraError,
    PayloadTooLarge,
    RateLimited,
    ServerBusy,
    Unavailable,
    UnknownModel,
)
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    CompletionGeneration,
    Continuation,
    GuidedDecoding,
    Sampling,
    TextGeneration,
)

UPSTREAM = Upstream(host="host:1", api_key_env="THE_KEY", api_key="sk-secret")
CHAT = ChatGeneration(id="a.1", model="m", messages=(ChatMessage(role="user", content="hé"),))


def _settings(**values: Any) -> OpenAISettings:
    return OpenAISettings.model_validate({"base_url": "http://host:1"} | values)


def _body(generation: TextGeneration, **values: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(generation_body(generation, "up", _settings(**values)))
    return body


def test_only_what_was_said_is_sent() -> None:
    assert _body(CHAT) == {
        "model": "up",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hé"}],
    }


def test_all_tokens_are_sent_in_the_form_that_every_server_knows() -> None:
    assert _body(CHAT.model_copy(update={"sampling": Sampling(top_k=0)}))["top_k"] == -1


def test_every_way_of_sampling_is_sent_under_its_name() -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        seed=7,
        max_tokens=9,
        stop=("x",),
        repetition_penalty=1.1,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logprobs=True,
        top_logprobs=2,
    )
    generation = CHAT.model_copy(update={"sampling": sampling})
    body = _body(
        generation, max_tokens_field="max_completion_tokens", repetition_penalty_field="repeat_penalty"
    )
    assert {
        name: body[name] for name in body if name not in ("model", "stream", "stream_options", "messages")
    } == {
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "seed": 7,
        "max_completion_tokens": 9,
        "stop": ["x"],
        "repeat_penalty": 1.1,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "logprobs": True,
        "top_logprobs": 2,
    }
    completion = CompletionGeneration(id="a.1", model="m", prompt="p", sampling=generation.sampling)
    body = _body(completion)
    assert (body["prompt"], body["logprobs"], body["max_tokens"]) == ("p", 2, 9)
    assert "messages" not in body


def test_guides_go_where_the_upstream_takes_them() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    guided = CHAT.model_copy(update={"guide": GuidedDecoding(json_schema=schema)})
    assert _body(guided)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }
    anything = CHAT.model_copy(update={"guide": GuidedDecoding(json_schema={"type": "object"})})
    assert _body(anything)["response_format"] == {"type": "json_object"}
    regex = CHAT.model_copy(update={"guide": GuidedDecoding(regex="[ab]")})
    assert _body(regex, regex_field="structured_outputs.regex")["structured_outputs"] == {"regex": "[ab]"}
    with pytest.raises(InvalidGuide, match="regex_field"):
        _body(regex)
    completion = CompletionGeneration(id="a.1", model="m", guide=guided.guide)
    assert _body(completion, completion_schema_field="json_schema")["json_schema"] == schema
    with pytest.raises(InvalidGuide, match="completion_schema_field"):
        _body(completion)


def test_a_callers_schema_is_sent_with_the_name_and_strictness_that_it_came_with() -> None:
    schema = {"type": "object"}
    asked = CHAT.model_copy(update={"guide": GuidedDecoding(json_schema=schema, name="person", strict=False)})
    assert _body(asked)["response_format"]["json_schema"] == {
        "name": "person",
        "schema": schema,
        "strict": False,
    }
    told = GuidedDecoding(json_schema=schema, name="person", description="of somebody")
    assert _body(CHAT.model_copy(update={"guide": told}))["response_format"]["json_schema"] == {
        "name": "person",
        "description": "of somebody",
        "schema": schema,
    }


def test_fields_that_are_not_ours_are_sent_as_they_came_and_replace_none_of_ours() -> None:
    extra = {"metadata": {"a": "b"}, "min_p": 0.1, "stream": False, "structured_outputs": {"backend": "x"}}
    asked = CHAT.model_copy(update={"extra": extra, "guide": GuidedDecoding(regex="a")})
    body = _body(asked, regex_field="structured_outputs.regex")
    assert (body["metadata"], body["min_p"], body["stream"]) == ({"a": "b"}, 0.1, True)
    assert body["structured_outputs"] == {"backend": "x", "regex": "a"}
    assert extra["structured_outputs"] == {"backend": "x"}


def test_embeddings_are_asked_for_in_base64() -> None:
    assert json.loads(embedding_body(("a", "b"), "up", {"user": "u", "model": "x"})) == {
        "user": "u",
        "model": "up",
        "input": ["a", "b"],
        "encoding_format": "base64",
    }


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://host:1", "http://host:1/v1"),
        ("http://host:1/", "http://host:1/v1"),
        ("https://host/api/v2/", "https://host/api/v2"),
    ],
)
def test_a_base_url_without_a_path_means_v1(given: str, used: str) -> None:
    assert _settings(base_url=given).base_url == used


@pytest.mark.parametrize(
    "values",
    [
        {"base_url": "ftp://host"},
        {"base_url": "host:1"},
        {"base_url": "http://user:pass@host"},
        {"base_url": "http://host/v1?key=1"},
        {"slots": 0},
        {"connect_timeout_s": 0},
        {"models": {"a": ""}},
        {"unknown": 1},
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        _settings(**values)
    assert "user:pass" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error", "kind", "text"),
    [
        (400, {"message": "bad", "param": "top_p"}, InvalidRequest, "host:1 answered 400: bad"),
        (422, {"message": "bad"}, InvalidRequest, "422"),
        (400, {"message": "long", "code": "context_length_exceeded"}, ContextTooLong, "long"),
        (
            400,
            {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 5},
            ContextTooLong,
            "9 tok.* 5 tok",
        ),
        (401, {"message": "wrong key sk-secret"}, BackendFailed, r"wrong key \*\*\* \(key from .*THE_KEY\)"),
        (403, {}, BackendFailed, "THE_KEY"),
        (404, {"message": "nope", "code": "model_not_found"}, UnknownModel, "for model 'm'"),
        (404, {"message": "no such page"}, BackendFailed, "no such page"),
        (413, {"message": "big"}, PayloadTooLarge, "big"),
        (429, {"message": "slow down"}, RateLimited, "slow down"),
        (500, {"message": "x" * 9999}, BackendFailed, "x…$"),
        (503, {"message": "loading"}, Unavailable, "loading"),
        (529, {"message": "overloaded"}, ServerBusy, "overloaded"),
        (302, {}, BackendFailed, "302"),
    ],
)
def test_a_status_becomes_the_error_that_says_the_same(
    status: int, error: dict[str, Any], kind: type[OrchestraError], text: str
) -> None:
    answer = json.dumps({"error": error}).encode()
    made = response_error(UPSTREAM, status, answer, generation=CHAT, retry_after_s=None)
    assert type(made) is kind
    with pytest.raises(kind, match=text):
        raise made
    assert len(made.message) < 400
    assert "sk-secret" not in made.message


def test_an_answer_that_is_no_json_is_quoted_shortly() -> None:
    assert (
        response_error(UPSTREAM, 502, b"<html>\n Bad   Gateway\xff").message
        == "host:1 answered 502: <html> Bad Gateway�"
    )
    assert (
        response_error(UPSTREAM, 500, b'{"detail": "of FastAPI"}').message
        == "host:1 answered 500: of FastAPI"
    )
    assert response_error(UPSTREAM, 500, b"[" * 100_000).status == 502


def test_a_refused_schema_is_an_invalid_guide() -> None:
    guided = CHAT.model_copy(update={"guide": GuidedDecoding(json_schema={})})
    made = response_error(UPSTREAM, 400, b'{"error": {"message": "JSON schema error"}}', generation=guided)
    assert type(made) is InvalidGuide


NO_SYSTEM = (
    "System role not supported",
    "system role is not supported",
    "Failed to apply chat template: Jinja Exception: System role not supported",
    "Only user and assistant roles are supported!",
    "This model does not support system messages.",
    "Developer instruction is not enabled for models/gemma-3-27b-it",
    "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
    'messages: Unexpected role "system".',
)
ALTERNATE = (
    "Conversation roles must alternate user/assistant/user/assistant/...",
    "After the optional system message, conversation roles must alternate user and assistant roles",
    'messages: roles must alternate between "user" and "assistant"',
    "Only user and assistant roles are supported, with the exception of an initial optional system message!",
)


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize("text", [*NO_SYSTEM, *ALTERNATE])
def test_a_refusal_of_roles_is_known_in_the_words_of_servers_and_templates(status: int, text: str) -> None:
    for said in (text, "x" * 400 + text):
        made = response_error(
            UPSTREAM, status, json.dumps({"error": {"message": said}}).encode(), generation=CHAT
        )
        assert isinstance(made, UnsupportedRoles)
        assert made.repeats == (text in ALTERNATE)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (500, "Internal system error"),
        (400, "the system prompt and the messages are too long: maximum context length is 9"),
        (400, "top_p must be below 1"),
        (403, "your role is not allowed to use this"),
        (503, "System role not supported"),
    ],
)
def test_other_refusals_are_none_of_roles(status: int, text: str) -> None:
    made = response_error(
        UPSTREAM, status, json.dumps({"error": {"message": text}}).encode(), generation=CHAT
    )
    assert not isinstance(made, UnsupportedRoles)


def test_an_error_in_a_stream_counts_by_its_code() -> None:
    assert type(event_error(UPSTREAM, {"code": 400, "message": "x"})) is InvalidRequest
    for error in (
        {"code": 429},
        {"code": "429"},
        {"code": "rate_limit_exceeded"},
        {"code": None, "type": "rate_limit_error"},
        {"code": 429, "status": "RESOURCE_EXHAUSTED"},
    ):
        assert type(event_error(UPSTREAM, error | {"message": "x"})) is RateLimited
    assert type(event_error(UPSTREAM, {"type": "overloaded_error"})) is ServerBusy
    assert event_error(UPSTREAM, {"code": 429, "retry_after": 3}).retry_after_s == 3
    assert type(event_error(UPSTREAM, "boom")) is BackendFailed


def test_the_key_is_in_no_repr() -> None:
    assert "sk-secret" not in repr(UPSTREAM)


def test_the_wait_that_an_upstream_asks_for_is_read_in_all_its_shapes() -> None:
    now = 1_000_000_000.0
    for headers, seconds in (
        ({"Retry-After": "7"}, 7),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
        ({"Retry-After": formatdate(now + 30, usegmt=True)}, 30),
        ({"Retry-After": formatdate(now - 30, usegmt=True)}, 0),
        ({"Retry-After": formatdate(now + 30), "Date": formatdate(now + 20)}, 10),
        ({"Retry-After": "1m30s"}, 90),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "1e300"}, 86_400),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86_400),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}, 0.02),
    ):
        assert retry_after_s(headers, now) == pytest.approx(seconds)
    for value in ("soon", "nan", "inf", "", "Fri, 99 Foo 2026", "5 apples"):
        assert retry_after_s({"Retry-After": value}, now) is None
    assert (
        retry_after_s({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "6m0s"}, now) is None
    )
    assert retry_after_s({}, now) is None


def test_a_wait_named_in_words_counts_too() -> None:
    said = b'{"error": {"message": "Limit reached. Please try again in 1m2.5s. Visit us."}}'
    assert response_error(UPSTREAM, 429, said).retry_after_s == 62.5


def test_holding_off_from_a_model_ends_at_its_moment_and_leaves_its_neighbours_alone() -> None:
    now = 100.0
    backoff = Backoff(60, clock=lambda: now)
    backoff.begin("m", RateLimited("slow down", retry_after_s=10))
    backoff.begin("m", ServerBusy("busy", retry_after_s=5))  # a shorter wish changes nothing
    backoff.check("other")
    now = 104.0
    with pytest.raises(RateLimited, match="slow down") as caught:
        backoff.check("m")
    assert caught.value.retry_after_s == 6
    now = 110.0
    backoff.check("m")
    backoff.begin("m", ServerBusy("busy", retry_after_s=1e6))
    with pytest.raises(ServerBusy) as refused:
        backoff.check("m")
    assert refused.value.retry_after_s == 1e6
    now = 170.0  # yet not longer than it may be held
    backoff.check("m")


def test_a_server_that_refuses_several_models_and_answers_none_is_held_off_as_a_whole() -> None:
    now = 100.0
    backoff = Backoff(60, clock=lambda: now)
    for name in "abc":
        backoff.check("d")
        backoff.begin(name, RateLimited(f"no {name}", retry_after_s=20))
    with pytest.raises(RateLimited):
        backoff.check("d")
    now = 101.0
    backoff.answered()
    backoff.check("d")


BEGUN: dict[str, Any] = {"continuation": Continuation(text="Once upon", tokens=2)}


@pytest.mark.parametrize(
    ("told", "fields"),
    [(False, {}), (True, {"continue_final_message": True, "add_generation_prompt": False})],
)
def test_a_chat_goes_on_from_an_assistants_message_at_its_end(told: bool, fields: dict[str, Any]) -> None:
    asked = CHAT.model_copy(update=BEGUN | {"sampling": Sampling(max_tokens=10)})
    body = json.loads(generation_body(asked, "up", _settings(), requests_continuation=told))
    assert body["messages"][-1] == {"role": "assistant", "content": "Once upon"}
    assert body["max_tokens"] == 8
    assert {name: body[name] for name in fields} == fields
    assert told or "continue_final_message" not in body


def test_a_callers_own_prefill_comes_before_the_text_so_far() -> None:
    messages = (*CHAT.messages, ChatMessage(role="assistant", content="It was: "))
    extra = {"continue_final_message": True, "add_generation_prompt": False}
    body = _body(CHAT.model_copy(update=BEGUN | {"messages": messages, "extra": extra}))
    assert body["messages"][-1] == {"role": "assistant", "content": "It was: Once upon"}


def test_a_completion_goes_on_after_its_prompt_and_prefix() -> None:
    asked = CompletionGeneration(id="a.1", model="m", prompt="Tell: ", **BEGUN)
    assert _body(asked)["prompt"] == "Tell: Once upon"
