"""Parses and admits requests: from the bytes of a body to the work and the encoder of the response."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, TypedDict, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from actors.gateway.admitted_request import DEFAULT_CACHE, AdmittedRequest, text_request, user_fields
from actors.gateway.bodies import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    OrchestraOptions,
    WorkBody,
)
from actors.gateway.choices import ChoicesEncoder
from actors.gateway.fields import ALIASES, NO_FIELDS, SAMPLING_FIELDS, Fields, Upstreams, sort_fields
from actors.gateway.model_resolver import ModelKind, ModelResolver
from actors.gateway.tool_bodies import offer_of
from actors.openai_api.chat import ChatEncoder
from actors.openai_api.completion import CompletionEncoder
from actors.openai_api.embedding import EmbeddingEncoder
from actors.openai_api.encoder import ResponseEncoder
from actors.runtime.failures import wrap_unexpected_errors
from actors.runtime.service import invalid_request
from orchestration.errors import InvalidRequest, NoNode
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    CompletionGeneration,
    EmbeddingGeneration,
    Generation,
    GuidedDecoding,
    Priority,
    Run,
    Sampling,
    Work,
)

B = TypeVar("B", bound=WorkBody)
NO_OPTIONS = OrchestraOptions()


class _CommonParams(TypedDict):
    """The fields of a body that any text work has."""

    sampling: Sampling
    guide: GuidedDecoding | None
    priority: Priority
    labels: dict[str, str]
    extra: dict[str, Any]


def parse_chat(raw: bytes, resolver: ModelResolver) -> ChatBody:
    """Parse a chat body. Raises what `parse` raises."""
    return parse(ChatBody, raw, resolver)


def parse(kind: type[B], raw: bytes, resolver: ModelResolver) -> B:
    """Parse a body of that class. Raises `UnknownModel` first, else `InvalidRequest` naming the invalid
    field."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        _look_up(raw, "embedding" if kind is EmbeddingBody else "chat", resolver)
        raise invalid_request(error) from error


def _look_up(raw: bytes, kind: ModelKind, resolver: ModelResolver) -> None:
    """Raise `UnknownModel` if the body names an unknown model, `InvalidRequest` for one of another kind."""
    try:
        body = from_json(raw)
    except ValueError:
        return
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(model, str) or not model or resolver.pattern(model) is not None:
        return
    with suppress(NoNode):
        resolver.need_model(model, kind)


def admit_chat(body: ChatBody, work_id: str, resolver: ModelResolver) -> AdmittedRequest:
    """Admit a body. Raises `InvalidRequest`, `UnknownModel`, `NoNode`."""
    pattern = resolver.pattern(body.model)
    work: Work
    if pattern is None:
        resolver.need_model(body.model, "chat")
        _refuse_of_patterns(body)
        fields = _fields(body, body.model, resolver)
        offer = offer_of(body.tools, body.tool_choice, body.parallel_tool_calls)
        messages, prefill = _messages_and_prefill(body, fields)
        work = ChatGeneration(
            id=work_id,
            model=body.model,
            messages=messages,
            prefill=prefill,
            offer=offer,
            streamed=bool(body.stream),
            **_common_params(body, fields),
        )
        return text_request([work], ChatEncoder, body, fields)
    resolver.need_node()
    extension = body.orchestra or NO_OPTIONS
    if extension.model is not None:
        resolver.need_model(extension.model, "chat", param="orchestra.model")
    with wrap_unexpected_errors(f"the settings of {work_id}", "pattern"):  # a plug-in checks its own
        pattern.set(extension.settings)
    fields = _fields(body, extension.model, resolver)
    offer = offer_of(body.tools, body.tool_choice, body.parallel_tool_calls)
    if offer is not None and offer.choice != "auto":
        raise InvalidRequest(f"tools: {body.model} cannot call your tools; use a model", param="tools")
    if offer is not None:
        note = f"tools: {body.model} answers in text and cannot call your tools; a model can"
        fields = replace(fields, notes=(*fields.notes, note))
    _refuse_special(fields, body.model)
    if (body.n or 1) > 1:
        raise InvalidRequest(f"n: {body.model!r} returns one choice; use a model", param="n")
    work = Run(
        id=work_id,
        pattern=pattern.name,
        messages=body.messages,
        model=extension.model,
        settings=extension.settings,
        budget=extension.budget,
        **_common_params(body, fields),
    )
    return text_request([work], ChatEncoder, body, fields)


def _refuse_of_patterns(body: ChatBody) -> None:
    """Raise `InvalidRequest` for options that only patterns have."""
    extension = body.orchestra
    if extension is None:
        return
    for name in ("settings", "budget"):
        if getattr(extension, name) != getattr(NO_OPTIONS, name):
            field = f"orchestra.{name}"
            raise InvalidRequest(
                f"{field}: only patterns have it, and {body.model!r} is a model", param=field
            )
    if extension.model not in (None, body.model):
        raise InvalidRequest(
            f"orchestra.model: only a pattern takes another model, and {body.model!r} is a model",
            param="orchestra.model",
        )


def _messages_and_prefill(body: ChatBody, fields: Fields) -> tuple[tuple[ChatMessage, ...], str]:
    """Return the messages, and the beginning of the answer if the last message is to be continued."""
    if "continue_final_message" in fields.options:
        last = body.messages[-1]
        if last.role != "assistant" or last.tool_calls:
            raise InvalidRequest(
                "continue_final_message: the last message must be an assistant's text",
                param="continue_final_message",
            )
        if body.extra.get("add_generation_prompt"):
            raise InvalidRequest(
                "add_generation_prompt: cannot be true beside continue_final_message",
                param="add_generation_prompt",
            )
        if len(body.messages) == 1:
            raise InvalidRequest("messages: at least one before the last is required", param="messages")
        return body.messages[:-1], last.content
    if "add_generation_prompt" in fields.options:
        raise InvalidRequest(
            f"add_generation_prompt: {body.model!r} always answers in a new message; continue_final_message "
            "continues the last one",
            param="add_generation_prompt",
        )
    return body.messages, ""


def admit_completion(raw: bytes, work_id: str, resolver: ModelResolver) -> AdmittedRequest:
    """Admit a body. Raises `InvalidRequest`, `UnknownModel`, `NoNode`."""
    body = parse(CompletionBody, raw, resolver)
    if resolver.pattern(body.model) is not None:
        raise InvalidRequest(
            f"{body.model!r} is a pattern and answers chats: use /v1/chat/completions", param="model"
        )
    resolver.need_model(body.model, "chat")
    fields = _fields(body, body.model, resolver)
    params = _common_params(body, fields)
    works = [_completion(work_id, prompt, body, params) for prompt in body.prompt]
    request = text_request(works, CompletionEncoder, body, fields)
    if "echo" in fields.options:
        _echo(request.encoder, body, params["sampling"])
    return request


def _completion(
    work_id: str, prompt: str | tuple[int, ...], body: CompletionBody, params: _CommonParams
) -> Generation:
    model, streamed = body.model, bool(body.stream)
    if isinstance(prompt, str):
        return CompletionGeneration(id=work_id, model=model, prompt=prompt, streamed=streamed, **params)
    return CompletionGeneration(id=work_id, model=model, prompt_ids=prompt, streamed=streamed, **params)


def _echo(encoder: ResponseEncoder, body: CompletionBody, sampling: Sampling) -> None:
    """Make each choice begin with its prompt."""
    if sampling.logprobs:
        raise InvalidRequest(
            "echo: the log probabilities of a prompt are not supported; leave logprobs or echo out",
            param="echo",
        )
    encoders = encoder.encoders if isinstance(encoder, ChoicesEncoder) else [encoder]
    repeats = body.n or 1
    for index, each in enumerate(encoders):
        prompt = body.prompt[index // repeats]
        if not isinstance(prompt, str):
            raise InvalidRequest("echo: prompts must be texts, not token ids", param="echo")
        assert isinstance(each, CompletionEncoder)
        each.echo = prompt


def admit_embedding(raw: bytes, work_id: str, resolver: ModelResolver) -> AdmittedRequest:
    """Admit a body. Raises `InvalidRequest`, `UnknownModel`, `NoNode`."""
    body = parse(EmbeddingBody, raw, resolver)
    if resolver.pattern(body.model) is not None:
        raise InvalidRequest(
            f"{body.model!r} is a pattern and answers chats: it has no embeddings", param="model"
        )
    resolver.need_model(body.model, "embedding")
    fields = _fields(body, body.model, resolver)
    _refuse_special(fields, body.model)
    dimensions = {} if body.dimensions is None else {"dimensions": body.dimensions}
    work = EmbeddingGeneration(
        id=work_id,
        model=body.model,
        inputs=body.input,
        labels=fields.labels,
        extra=fields.extra | dimensions,
    )
    encoder = EmbeddingEncoder(
        body.model, len(body.input), base64=body.encoding_format == "base64", dimensions=body.dimensions
    )
    encoder.notes = fields.notes
    return AdmittedRequest(
        work=work, encoder=encoder, stream=False, cache=body.cache or DEFAULT_CACHE, **user_fields(body)
    )


def _refuse_special(fields: Fields, model: str) -> None:
    """Raise `InvalidRequest` for fields that only text generation by a model supports."""
    for name in (*fields.options, *(name for name in fields.sampling if name in SAMPLING_FIELDS)):
        raise InvalidRequest(f"{name}: not supported by {model!r}", param=name)


def _fields(
    body: ChatBody | CompletionBody | EmbeddingBody, model: str | None, resolver: ModelResolver
) -> Fields:
    """Sort the unknown fields of a body for `model`; None means any model.

    Raises `InvalidRequest` naming one.
    """
    extra = body.extra
    outputs = None if isinstance(body, EmbeddingBody) else body.structured_outputs
    foreign = outputs is not None and outputs.foreign
    if not extra and not foreign:
        return NO_FIELDS
    if isinstance(body, CompletionBody) and extra.get("best_of") == (body.n or 1):
        extra = {
            name: value for name, value in extra.items() if name != "best_of"
        }  # all of them are returned
    upstreams = resolver.upstreams(model)
    if outputs is not None and foreign:
        if upstreams is Upstreams.NONE:
            name = f"structured_outputs.{foreign[0][:60]}"
            raise InvalidRequest(f"{name}: not supported by {body.model!r}", param=name)
        extra = extra | {"structured_outputs": outputs.model_dump(by_alias=True, exclude_unset=True)}
    return sort_fields(extra, upstreams, model=body.model, own=type(body).model_fields)


def _common_params(body: ChatBody | CompletionBody, fields: Fields) -> _CommonParams:
    try:
        sampling = body.sampling(fields.sampling)
    except ValidationError as error:
        raise _with_caller_name(invalid_request(error), body) from error
    for name, value in fields.labels.items():
        if body.labels.get(name, value) != value:
            raise InvalidRequest(
                f"orchestra.labels: {name}={value} is needed for {', '.join(fields.extra)[:200]}",
                param="orchestra.labels",
            )
    return _CommonParams(
        sampling=sampling,
        guide=body.guide(),
        priority=body.priority,
        labels=body.labels | fields.labels,
        extra=fields.extra,
    )


def _with_caller_name(error: InvalidRequest, body: ChatBody | CompletionBody) -> InvalidRequest:
    """Return the error with the caller's name of the field."""
    names = {ours: theirs for theirs, ours in ALIASES.items() if theirs in body.extra} | body.names
    ours = error.param or ""
    if ours not in names or getattr(body, ours, None) is not None:
        return error
    return InvalidRequest(names[ours] + error.message.removeprefix(ours), param=names[ours])
