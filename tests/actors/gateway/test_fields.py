"""Fields of the bodies of OpenAI, vLLM and llama.cpp: known, forwarded or refused, never lost in silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai.types import completion_create_params as completions
from openai.types import embedding_create_params as embeddings
from openai.types.chat import completion_create_params as chats

from actors.backends.echo import EchoBackend, EchoSettings
from actors.gateway.bodies import ChatBody, CompletionBody, EmbeddingBody
from actors.gateway.fields import (
    ALIASES,
    HARMLESS,
    MODEL_FIELDS,
    OPTIONS,
    REFUSED,
    SAMPLING_FIELDS,
    UPSTREAM,
    Upstreams,
    sort_fields,
)
from orchestration.errors import InvalidRequest
from orchestration.messages import Sampling
from tests.fixtures.cluster import Cluster
from tests.fixtures.scripted import DONE, WHOLE, Before, cluster_before, stream
from tests.fixtures.upstream import MODEL

VLLM = """
    add_generation_prompt add_special_tokens allowed_token_ids bad_words cache_salt chat_template
    chat_template_kwargs continue_final_message documents echo ec_transfer_params frequency_penalty ignore_eos
    include_reasoning include_stop_str_in_output kv_transfer_params length_penalty logit_bias
    logprob_token_ids logprobs max_completion_tokens max_tokens media_io_kwargs min_p min_tokens
    mm_processor_kwargs model n parallel_tool_calls presence_penalty priority prompt_embeds prompt_logprobs
    reasoning_effort repetition_detection repetition_penalty request_id response_format return_mm_kwargs
    return_prompt_text return_token_ids return_token_offsets return_tokens_as_token_ids
    routed_experts_prompt_start seed session_id skip_special_tokens spaces_between_special_tokens stop
    stop_token_ids stream stream_interval stream_options structured_outputs temperature
    thinking_token_budget tool_choice tools top_k top_logprobs top_p truncate_prompt_tokens truncation_side
    use_beam_search user vllm_xargs watermarking
    best_of early_stopping guided_choice guided_decoding_backend guided_grammar guided_json guided_regex
    guided_whitespace_pattern logits_processors suffix
    embd_normalize normalize use_activation embed_dtype endianness
"""
"""Of vLLM's chats, completions and embeddings; then those of its older versions."""

LLAMA = """
    adaptive_decay adaptive_target backend_sampling cache_prompt chat_format chat_parser dry_allowed_length
    dry_base dry_multiplier dry_penalty_last_n dry_sequence_breakers dynatemp_exponent dynatemp_range
    frequency_penalty grammar grammar_lazy grammar_triggers id_slot ignore_eos json_schema logit_bias logprobs
    lora max_completion_tokens max_tokens min_keep min_p mirostat mirostat_eta mirostat_tau n n_cache_reuse
    n_cmpl n_discard n_indent n_keep n_predict n_probs parse_tool_calls post_sampling_probs presence_penalty
    preserved_tokens reasoning_budget_arm_immediately reasoning_budget_end_tag reasoning_budget_message
    reasoning_budget_start_tag reasoning_budget_tokens reasoning_format repeat_last_n repeat_penalty
    response_fields return_progress return_tokens samplers seed speculative.n_max speculative.n_min
    speculative.ngram_m_hits speculative.ngram_size_m speculative.ngram_size_n speculative.p_min
    speculative.type sse_ping_interval stop stream stream_options t_max_predict_ms temperature
    thinking_forced_open timings_per_token top_k top_n_sigma top_p typical_p xtc_probability xtc_threshold
"""
"""Of `params_from_json_cmpl` of llama.cpp's server."""

OPENAI: dict[type[Any], set[str]] = {
    ChatBody: {*chats.CompletionCreateParamsBase.__annotations__},
    CompletionBody: {*completions.CompletionCreateParamsBase.__annotations__},
    EmbeddingBody: {*embeddings.EmbeddingCreateParams.__annotations__},
}
LISTS = (
    HARMLESS,
    MODEL_FIELDS.keys(),
    SAMPLING_FIELDS.keys(),
    OPTIONS.keys(),
    REFUSED.keys(),
    ALIASES.keys(),
)
OWN = ChatBody.model_fields
CHAT: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("body", OPENAI)
def test_every_field_of_openai_is_known_or_in_one_of_the_lists(body: type[Any]) -> None:
    names = OPENAI[body] - {"stream"}
    assert len(names) > 4
    homeless = [name for name in names if not _fates(name, body)]
    assert not homeless


@pytest.mark.parametrize("names", [VLLM, LLAMA])
def test_every_field_of_vllm_and_llama_cpp_is_known_or_in_one_of_the_lists(names: str) -> None:
    """A field may be a chat's own and foreign to a completion, as `logit_bias` will be."""
    bodies = (ChatBody, CompletionBody, EmbeddingBody)
    homeless = [name for name in names.split() if not any(_fates(name, body) for body in bodies)]
    assert not homeless


def test_no_field_has_two_fates() -> None:
    names = [name for names in LISTS for name in names]
    assert len(names) == len(set(names))
    assert not [name for name in names if name in ChatBody.model_fields]


def _fates(name: str, body: type[Any]) -> list[Any]:
    return [names for names in (*LISTS, body.model_fields) if name in names]


@pytest.mark.parametrize("name", [*MODEL_FIELDS, *REFUSED])
def test_what_would_change_an_answer_is_refused_by_name_and_a_neutral_value_is_not(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name) as caught:
        sort_fields({name: "other than usual"}, Upstreams.NONE, model="m", own=OWN)
    assert caught.value.param == name
    neutral = MODEL_FIELDS[name] if name in MODEL_FIELDS else REFUSED[name][1]
    for value in (None, *neutral):
        assert sort_fields({name: value}, Upstreams.NONE, model="m", own=OWN).notes == ()


@pytest.mark.parametrize("upstreams", [Upstreams.SOME, Upstreams.ALL])
def test_what_would_change_an_answer_goes_only_where_there_is_an_upstream(upstreams: Upstreams) -> None:
    said: dict[str, Any] = {"min_p": 0.1, "user": "me", "made_up": 1}
    fields = sort_fields(said, upstreams, model="m", own=OWN)
    assert (fields.extra, fields.labels, fields.notes) == (said, UPSTREAM, ())
    idle = {"min_p": 0, "user": "me"}
    fields = sort_fields(idle, upstreams, model="m", own=OWN)
    assert (fields.extra, fields.labels) == ({"min_p": 0, "user": "me"}, {})
    with pytest.raises(InvalidRequest, match="prompt_logprobs"):
        sort_fields({"prompt_logprobs": 1}, upstreams, model="m", own=OWN)


def post(cluster: Cluster, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{cluster.base_url}/{path}", json=body, timeout=30)


def test_a_local_model_refuses_a_field_by_its_name(cluster: Cluster) -> None:
    for path, body in (
        ("chat/completions", CHAT | {"typical_p": 0.1}),
        ("completions", {"model": "echo", "prompt": "hi", "typical_p": 0.1}),
        ("embeddings", {"model": "echo-embed", "input": "hi", "truncate_prompt_tokens": 3}),
        ("chat/completions", CHAT | {"structured_outputs": {"structural_tag": "x"}}),
        ("jobs", CHAT | {"mirostat": 2}),
    ):
        answer = post(cluster, path, **body)
        error = answer.json()["error"]
        assert answer.status_code == 400, path
        assert error["param"].split(".")[0] in body, error
        assert error["param"] in error["message"]


def test_a_pattern_before_local_models_refuses_it_too(cluster: Cluster) -> None:
    answer = post(cluster, "chat/completions", **CHAT | {"model": "orchestra/single", "min_p": 0.1})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "min_p")


def test_what_a_local_model_follows_becomes_its_sampling_or_an_option() -> None:
    said: dict[str, Any] = {"min_p": 0.1, "logit_bias": {"5": -100}, "echo": True, "ignore_eos": False}
    fields = sort_fields(said, Upstreams.NONE, model="m", own=OWN)
    assert fields.sampling == {"min_p": 0.1, "logit_bias": {"5": -100}}
    assert fields.options == {"echo"}
    assert not SAMPLING_FIELDS.keys() - Sampling.model_fields.keys()


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"continue_final_message": True}, "continue_final_message"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"min_p": 3}, "min_p"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"n": 0}, "n"),
        ({"n": 65}, "n"),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "stream_options"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_with_its_field(
    cluster: Cluster, more: dict[str, Any], param: str
) -> None:
    answer = post(cluster, "chat/completions", **CHAT | more)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"].split(".")[0] == param, error


@pytest.mark.parametrize("more", [{"n": 2}, {"logit_bias": {"1": 1}}, {"continue_final_message": True}])
def test_a_pattern_refuses_what_only_a_model_follows(cluster: Cluster, more: dict[str, Any]) -> None:
    answer = post(cluster, "chat/completions", **CHAT | {"model": "orchestra/single"} | more)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(more)))


@pytest.mark.parametrize("streamed", [False, True])
def test_an_unknown_field_is_listed_in_the_notes(cluster: Cluster, streamed: bool) -> None:
    answer = post(cluster, "chat/completions", **CHAT, frobnicate=1, other={}, user="me", stream=streamed)
    assert answer.status_code == 200
    assert "because they are unknown here: frobnicate, other" in answer.text


def test_embeddings_have_notes_too(cluster: Cluster) -> None:
    answer = post(cluster, "embeddings", model="echo-embed", input="hi", frobnicate=1).json()
    assert "frobnicate" in answer["orchestra"]["notes"][0]


@pytest.mark.parametrize(
    ("said", "meant"), [("temprature", "temperature"), ("max_token", "max_tokens"), ("stops", "stop")]
)
def test_a_misspelt_field_is_refused_with_the_right_name(cluster: Cluster, said: str, meant: str) -> None:
    answer = post(cluster, "chat/completions", **CHAT, **{said: 1})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, said)
    assert repr(meant) in error["message"]


def test_llama_cpps_names_of_what_is_known_are_understood(cluster: Cluster) -> None:
    body = CHAT | {"messages": [{"role": "user", "content": "a b c d"}]}
    answer = post(cluster, "chat/completions", **body, n_predict=2, repeat_penalty=1.1, cache_prompt=True)
    assert answer.json()["choices"][0]["message"]["content"] == "a b"
    answer = post(cluster, "chat/completions", **body, n_predict=-1)
    assert answer.json()["choices"][0]["message"]["content"] == "a b c d"
    answer = post(cluster, "chat/completions", **body, repeat_penalty=9)
    error = answer.json()["error"]
    assert error["param"] == "repeat_penalty"
    assert error["message"].startswith("repeat_penalty: ")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": "hi"}),
        ("chat/completions", {"messages": CHAT["messages"], "min_p": 0.1}),
        ("chat/completions", {"messages": CHAT["messages"], "temperature": 9}),
        ("completions", {"prompt": {}}),
        ("embeddings", {"input": [[1]]}),
        ("jobs", {"messages": []}),
    ],
)
def test_an_unknown_model_is_reported_before_any_other_error(
    cluster: Cluster, path: str, body: dict[str, Any]
) -> None:
    for model in ("nope", "orchestra/nope"):
        answer = post(cluster, path, model=model, **body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_model")


@pytest.fixture(scope="module")
def mixed() -> Iterator[Before]:
    """One model on two nodes: behind an upstream, and local."""
    near = EchoBackend(EchoSettings(models=(MODEL,), repeat=False))
    with cluster_before(stream(*WHOLE, DONE), beside=[("near", near)]) as running:
        yield running


def test_a_field_is_heeded_where_only_some_nodes_can(mixed: Before) -> None:
    body = CHAT | {"model": MODEL}
    for number in range(6):
        mixed.answers(*WHOLE, DONE)
        answer = post(mixed.cluster, "chat/completions", **body, min_p=0.1)
        assert answer.json()["orchestra"]["node"] == "far", number
        assert mixed.body["min_p"] == 0.1
    answer = post(
        mixed.cluster, "chat/completions", **body, min_p=0.1, orchestra={"labels": {"backend": "echo"}}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "orchestra.labels")
    structural = {"structural_tag": "{}", "whitespace_pattern": None}
    mixed.answers(*WHOLE, DONE)
    assert post(mixed.cluster, "chat/completions", **body, structured_outputs=structural).status_code == 200
    assert mixed.body["structured_outputs"] == structural


def test_tools_that_need_not_be_called_change_nothing_where_nothing_can_call_them(mixed: Before) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    near = {"labels": {"backend": "echo"}}
    answer = post(mixed.cluster, "chat/completions", **CHAT | {"model": MODEL}, tools=tools, orchestra=near)
    assert answer.json()["choices"][0]["message"]["content"] == "hi"
    assert "the echo backend cannot call tools" in answer.json()["orchestra"]["notes"][0]


def test_values_that_mean_no_limit_elsewhere_mean_none_here(cluster: Cluster) -> None:
    body = CHAT | {"messages": [{"role": "user", "content": "a b c d"}]}
    for said in ({"max_tokens": -1}, {"max_completion_tokens": -1}, {"top_k": -1, "temperature": 0.5}):
        answer = post(cluster, "chat/completions", **body, **said)
        assert answer.json()["choices"][0]["message"]["content"] == "a b c d", said
    answer = post(cluster, "completions", model="echo", prompt="a b", logprobs=False)
    assert answer.json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(
    ("path", "more", "param"),
    [
        ("chat/completions", {"max_completion_tokens": 0}, "max_completion_tokens"),
        ("chat/completions", {"logit_bias": {"x": 1}}, "logit_bias.x"),
        ("chat/completions", {"continue_final_message": "x"}, "continue_final_message"),
        ("chat/completions", {"orchestra": {"priorty": "batch"}}, "orchestra.priorty"),
        ("chat/completions", {"orchestra": {"settings": {"voters": 3}}}, "orchestra.settings"),
        ("chat/completions", {"orchestra": {"budget": {"tokens": 5}}}, "orchestra.budget"),
        ("chat/completions", {"orchestra": {"model": "slow"}}, "orchestra.model"),
        ("chat/completions", {"cache": {"tll": 5}}, "cache.tll"),
        ("chat/completions", {"system": "Be brief."}, "system"),
        ("chat/completions", {"stop_sequences": ["a"]}, "stop_sequences"),
        ("chat/completions", {"prompt": "a"}, "prompt"),
        (
            "chat/completions",
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]},
            "tools.0.function.parameters",
        ),
        ("completions", {"prompt": "a", "logprobs": 21}, "logprobs"),
        ("completions", {"prompt": "a", "n_predict": -5}, "n_predict"),
        ("completions", {"prompt": [-1]}, "prompt"),
        ("completions", {"prompt": "a", "echo": "maybe"}, "echo"),
        ("completions", {"prompt": "a", "max_completion_tokens": 5}, "max_completion_tokens"),
        ("completions", {"prompt": "a", "tools": [{"type": "function"}]}, "tools"),
    ],
)
def test_an_error_names_the_field_as_the_caller_sent_it(
    cluster: Cluster, path: str, more: dict[str, Any], param: str
) -> None:
    body = CHAT if path == "chat/completions" else {"model": "echo"}
    answer = post(cluster, path, **body | more)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["message"].startswith(f"{param}: ")
    assert "Value error" not in error["message"]


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("completions", {"prompt": "a", "n": 2, "best_of": 2}),
        ("completions", {"prompt": "a", "echo": "false", "messages": [], "tools": []}),
        (
            "chat/completions",
            {"continue_final_message": "false", "chat_template_kwargs": {"thinking": False}},
        ),
        ("chat/completions", {"truncate_prompt_tokens": -1, "orchestra": {"model": "echo"}}),
        ("chat/completions", {"tools": [{"function": {"name": "f"}}]}),
    ],
)
def test_values_that_change_nothing_are_taken(cluster: Cluster, path: str, more: dict[str, Any]) -> None:
    body = CHAT if path == "chat/completions" else {"model": "echo"}
    answer = post(cluster, path, **body | more)
    assert answer.status_code == 200, answer.text


def test_a_schema_is_followed_with_either_type_that_asks_for_json() -> None:
    schema = {"type": "integer"}
    for kind in ("json_schema", "json_object"):
        said = {"type": kind, "json_schema": {"name": "n", "schema": schema}}
        body = ChatBody.model_validate(CHAT | {"response_format": said})
        guide = body.guide()
        assert guide is not None
        assert guide.json_schema == schema
