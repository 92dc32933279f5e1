"""From the bytes of a request to the work it asks for and the shape of its answer."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypedDict, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from actors.gateway.admission import Admission, Kind
from actors.gateway.bodies import CacheAsked, ChatBody, CompletionBody, EmbeddingBody, Extension, WorkBody
from actors.gateway.chat_shape import ChatShape
from actors.gateway.completion_shape import CompletionShape
from actors.gateway.embedding_shape import EmbeddingShape
from actors.gateway.fields import NO_FIELDS, Fields, Upstreams, sorted_out
from actors.gateway.shape import Shape
from actors.gateway.tool_bodies import offer_of
from actors.runtime.service import invalid
from orchestration.errors import InvalidRequest, NoNode
from orchestration.messages import Generation, Guide, Priority, Run, Sampling

B = TypeVar("B", bound=WorkBody)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One admitted request: what is to be done, how the answer looks, and whether a kept one will do."""

    work: Generation | Run
    shape: Shape
    stream: bool
    cache: CacheAsked | None = None


class _Said(TypedDict):
    """What a body asks for of any work that makes text."""

    sampling: Sampling
    guide: Guide | None
    priority: Priority
    labels: dict[str, str]
    extra: dict[str, Any]


def parse_chat(raw: bytes, admission: Admission) -> ChatBody:
    """Raises what `parse` does."""
    return parse(ChatBody, raw, admission)


def parse(kind: type[B], raw: bytes, admission: Admission) -> B:
    """A body of that kind. Raises `InvalidRequest` naming the field at fault, and `UnknownModel` before it
    complains of anything else."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        _look_up(raw, "embedding" if kind is EmbeddingBody else "chat", admission)
        raise invalid(error) from error


def _look_up(raw: bytes, kind: Kind, admission: Admission) -> None:
    """Raises `UnknownModel`, or `InvalidRequest` for one of another kind, if the body names such a model."""
    try:
        body = from_json(raw)
    except ValueError:
        return
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(model, str) or not model or admission.pattern(model) is not None:
        return
    with suppress(NoNode):
        admission.need_model(model, kind)


def asked_chat(body: ChatBody, work_id: str, admission: Admission) -> Asked:
    """Raises `InvalidRequest`, `UnknownModel`, `NoNode`."""
    pattern = admission.pattern(body.model)
    work: Generation | Run
    if pattern is None:
        admission.need_model(body.model, "chat")
        fields = _fields(body, body.model, admission)
        offer = offer_of(body.tools, body.tool_choice, body.parallel_tool_calls)
        work = Generation(
            id=work_id, model=body.model, messages=body.messages, offer=offer, **_said(body, fields)
        )
        return _asked(work, ChatShape, body, fields)
    admission.need_node()
    extension = body.orchestra or Extension()
    if extension.model is not None:
        admission.need_model(extension.model, "chat", param="orchestra.model")
    pattern.set(extension.settings)
    fields = _fields(body, extension.model, admission)
    offer = offer_of(body.tools, body.tool_choice, body.parallel_tool_calls)
    if offer is not None and offer.choice != "auto":
        raise InvalidRequest(f"tools: {body.model} calls no tools of yours; name a model", param="tools")
    if offer is not None:
        note = f"tools: {body.model} answers in text and calls none of yours; a model may"
        fields = replace(fields, notes=(*fields.notes, note))
    work = Run(
        id=work_id,
        pattern=pattern.name,
        messages=body.messages,
        model=extension.model,
        settings=extension.settings,
        budget=extension.budget,
        **_said(body, fields),
    )
    return _asked(work, ChatShape, body, fields)


def asked_completion(raw: bytes, work_id: str, admission: Admission) -> Asked:
    """Raises `InvalidRequest`, `UnknownModel`, `NoNode`."""
    body = parse(CompletionBody, raw, admission)
    if admission.pattern(body.model) is not None:
        raise InvalidRequest(f"{body.model!r} answers chats: use /v1/chat/completions", param="model")
    admission.need_model(body.model, "chat")
    fields = _fields(body, body.model, admission)
    work = Generation(
        id=work_id, kind="completion", model=body.model, prompt=body.prompt, **_said(body, fields)
    )
    return _asked(work, CompletionShape, body, fields)


def asked_embedding(raw: bytes, work_id: str, admission: Admission) -> Asked:
    """Raises `InvalidRequest`, `UnknownModel`, `NoNode`."""
    body = parse(EmbeddingBody, raw, admission)
    if admission.pattern(body.model) is not None:
        raise InvalidRequest(f"{body.model!r} answers chats, it makes no embeddings", param="model")
    admission.need_model(body.model, "embedding")
    fields = _fields(body, body.model, admission)
    dimensions = {} if body.dimensions is None else {"dimensions": body.dimensions}
    work = Generation(
        id=work_id,
        kind="embedding",
        model=body.model,
        inputs=body.input,
        labels=fields.labels,
        extra=fields.extra | dimensions,
    )
    shape = EmbeddingShape(
        body.model, len(body.input), base64=body.encoding_format == "base64", dimensions=body.dimensions
    )
    shape.notes = fields.notes
    return Asked(work=work, shape=shape, stream=False, cache=body.cache)


def _fields(
    body: ChatBody | CompletionBody | EmbeddingBody, model: str | None, admission: Admission
) -> Fields:
    """What becomes of the fields that are not the body's own, where `model` answers, or with None any.

    Raises `InvalidRequest` naming one.
    """
    extra = body.extra
    outputs = None if isinstance(body, EmbeddingBody) else body.structured_outputs
    foreign = outputs is not None and outputs.foreign
    if not extra and not foreign:
        return NO_FIELDS
    upstreams = admission.upstreams(model)
    if outputs is not None and foreign:
        if upstreams is Upstreams.NONE:
            name = f"structured_outputs.{foreign[0][:60]}"
            raise InvalidRequest(f"{name}: {body.model!r} cannot follow it", param=name)
        extra = extra | {"structured_outputs": outputs.model_dump(by_alias=True, exclude_unset=True)}
    return sorted_out(extra, upstreams, model=body.model, own=type(body).model_fields)


def _said(body: ChatBody | CompletionBody, fields: Fields) -> _Said:
    try:
        sampling = body.sampling(fields.sampling)
    except ValidationError as error:
        raise invalid(error) from error
    for name, value in fields.labels.items():
        if body.labels.get(name, value) != value:
            raise InvalidRequest(
                f"orchestra.labels: {name}={value} is needed for {', '.join(fields.extra)[:200]}",
                param="orchestra.labels",
            )
    return _Said(
        sampling=sampling,
        guide=body.guide(),
        priority=body.priority,
        labels=body.labels | fields.labels,
        extra=fields.extra,
    )


def _asked(
    work: Generation | Run,
    shape: type[ChatShape | CompletionShape],
    body: ChatBody | CompletionBody,
    fields: Fields,
) -> Asked:
    """With the shape of a text's answer."""
    shaped = shape(
        work.id,
        body.model,
        int(time.time()),
        include_usage=body.include_usage,
        logprobs=work.sampling.logprobs,
    )
    shaped.notes = fields.notes
    return Asked(work=work, shape=shaped, stream=bool(body.stream), cache=body.cache)
