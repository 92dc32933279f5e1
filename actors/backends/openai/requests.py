"""Builds the request bodies of the OpenAI API."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from actors.backends.openai.settings import OpenAISettings
from orchestration.errors import InvalidGuide, Unavailable
from orchestration.messages import ChatMessage, GuidedDecoding, Sampling, TextGeneration, ToolCall, ToolOffer

_OUR_GUIDES = ("", "response_format", "regex", "structured_outputs.json_object")
"""Guide fields that an upstream is not expected to have, or that are sent anyway."""
_SAME_NAME = (
    "temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty",
    "min_p", "min_tokens", "ignore_eos", "stop_token_ids", "logit_bias", "truncate_prompt_tokens",
)  # fmt: skip


def generation_body(
    generation: TextGeneration,
    upstream: str,
    settings: OpenAISettings,
    *,
    streamed: bool = True,
    requests_continuation: bool = False,
) -> bytes:
    """The JSON body of `/chat/completions` or `/completions`, after the prefix if there is one.

    `streamed`: request a stream of events, else one JSON object. `requests_continuation`: send the fields
    that request the continuation of an assistant's message. Raises `InvalidGuide`.
    """
    chat = generation.kind == "chat"
    body: dict[str, Any] = generation.extra | {"model": upstream, "stream": streamed}
    if streamed:
        body["stream_options"] = {"include_usage": True}
    if generation.kind == "chat":
        body["messages"] = [_message(message) for message in generation.messages]
        if generation.offer is not None:
            _offer(body, generation.offer)
    else:
        body["prompt"] = list(generation.prompt_ids) or generation.prompt
    _sampling(body, generation.sampling, chat, settings)
    if generation.prefix:
        _go_on(body, generation, settings, requests_continuation)
    if generation.guide is not None:
        _guide(
            body, generation.guide, "response_format" if chat else settings.completion_schema_field, settings
        )
    return _dump(body)


def embedding_body(inputs: Sequence[str], upstream: str, extra: Mapping[str, Any]) -> bytes:
    """The JSON body of `/embeddings`. It requests base64, because parsing floats is slow."""
    return _dump({**extra, "model": upstream, "input": list(inputs), "encoding_format": "base64"})


def _dump(body: dict[str, Any]) -> bytes:
    return to_json(body, inf_nan_mode="constants")


def _message(message: ChatMessage) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        fields["content"] = message.content or None
        fields["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.reasoning:
        fields["reasoning_content"] = message.reasoning
    if message.name is not None:
        fields["name"] = message.name
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    return fields


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _offer(body: dict[str, Any], offer: ToolOffer) -> None:
    body["tools"] = [
        {
            "type": "function",
            "function": tool.model_dump(include={"name", "description", "parameters"})
            | ({} if tool.strict is None else {"strict": tool.strict}),
        }
        for tool in offer.tools
    ]
    if offer.choice == "named":
        body["tool_choice"] = {"type": "function", "function": {"name": offer.name}}
    else:
        body["tool_choice"] = offer.choice
    if offer.parallel is not None:
        body["parallel_tool_calls"] = offer.parallel


def _sampling(body: dict[str, Any], sampling: Sampling, chat: bool, settings: OpenAISettings) -> None:
    """Set only given fields: upstreams have their own defaults, and may refuse unknown fields."""
    for name in _SAME_NAME:
        value = getattr(sampling, name)
        if value is not None:
            body[name] = value
    if (
        sampling.top_k == 0
    ):  # all of them: some servers know that as -1 alone, and those that know 0 know it too
        body["top_k"] = -1
    if sampling.max_tokens is not None:
        body[settings.max_tokens_field if chat else "max_tokens"] = sampling.max_tokens
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.repetition_penalty is not None:
        body[settings.repetition_penalty_field] = sampling.repetition_penalty
    if sampling.logprobs:
        if chat:
            body["logprobs"] = True
            body["top_logprobs"] = sampling.top_logprobs
        else:
            body["logprobs"] = sampling.top_logprobs


def _go_on(
    body: dict[str, Any], generation: TextGeneration, settings: OpenAISettings, requests_continuation: bool
) -> None:
    if generation.kind == "chat":
        if body.get("continue_final_message") and generation.messages[-1].role == "assistant":
            body["messages"][-1]["content"] += generation.prefix  # the caller's own prefill comes first
        else:
            body["messages"].append({"role": "assistant", "content": generation.prefix})
        if requests_continuation:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    elif generation.prompt_ids:
        raise Unavailable("an answer to token ids can be continued only by the node that began it")
    else:
        body["prompt"] += generation.prefix
    if generation.sampling.max_tokens is not None:
        field = settings.max_tokens_field if generation.kind == "chat" else "max_tokens"
        body[field] = max(1, generation.sampling.max_tokens - generation.prefix_tokens)


def _guide(
    body: dict[str, Any], guide: GuidedDecoding, schema_field: str | None, settings: OpenAISettings
) -> None:
    """Set the guide in the field of the settings, else in the caller's field if it is one of vLLM's or
    llama.cpp's."""
    as_it_came = None if guide.field in _OUR_GUIDES else guide.field
    if guide.json_schema is not None:
        schema_field = schema_field or as_it_came
        if schema_field is None:
            raise InvalidGuide(
                f"{settings.host} accepts no JSON schema in completions: set openai.completion_schema_field",
                param="guide",
            )
        bare = schema_field != "response_format"
        _put(body, schema_field, guide.json_schema if bare else _response_format(guide, settings))
    elif guide.grammar is not None:
        if as_it_came is None:
            raise InvalidGuide(f"{settings.host} accepts no grammar as a guide", param="guide")
        _put(body, as_it_came, guide.grammar)
    elif guide.choice is not None and settings.regex_field is None and as_it_came is not None:
        _put(body, as_it_came, list(guide.choice))
    else:
        field = settings.regex_field or as_it_came
        if field is None:
            raise InvalidGuide(
                f"{settings.host} accepts no regular expression as a guide: set openai.regex_field",
                param="guide",
            )
        _put(body, field, guide.regex or "|".join(map(re.escape, guide.choice or ())))


def _response_format(guide: GuidedDecoding, settings: OpenAISettings) -> dict[str, Any]:
    """A caller's schema unchanged; Orchestra's own with the `strict` of the settings."""
    if guide.json_schema == {"type": "object"} and not guide.name:
        return {"type": "json_object"}
    strict = guide.strict if guide.name else settings.strict_json_schema
    named: dict[str, Any] = {"name": guide.name or "answer", "schema": guide.json_schema}
    if guide.description:
        named["description"] = guide.description
    if strict is not None:
        named["strict"] = strict
    return {"type": "json_schema", "json_schema": named}


def _put(body: dict[str, Any], dotted: str, value: Any) -> None:
    """Set the field of `body` with the path `dotted`; missing objects are created."""
    *outer, last = dotted.split(".")
    for name in outer:
        there = body.get(name)
        body[name] = dict(there) if isinstance(there, dict) else {}  # the caller's own is left as it is
        body = body[name]
    body[last] = value
