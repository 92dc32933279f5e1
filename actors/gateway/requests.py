"""From the bytes of a request to the work it asks for and the shape of its answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

from pydantic import ValidationError

from actors.gateway.admission import Admission
from actors.gateway.bodies import Body, CacheAsked, ChatBody, CompletionBody, EmbeddingBody, Extension
from actors.gateway.chat_shape import ChatShape
from actors.gateway.completion_shape import CompletionShape
from actors.gateway.embedding_shape import EmbeddingShape
from actors.gateway.guides import guide_of
from actors.gateway.shape import Shape
from actors.gateway.tool_bodies import offer_of
from actors.runtime.service import invalid
from orchestration.errors import InvalidRequest
from orchestration.messages import Generation, Guide, Priority, Run, Sampling

B = TypeVar("B", bound=Body)


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


def parse_chat(raw: bytes) -> ChatBody:
    """Raises `InvalidRequest` naming the field at fault."""
    return parse(ChatBody, raw)


def parse(kind: type[B], raw: bytes) -> B:
    """A body of that kind. Raises `InvalidRequest` naming the field at fault."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise invalid(error) from error


def asked_chat(body: ChatBody, work_id: str, admission: Admission) -> Asked:
    """Raises `InvalidRequest`, `UnknownModel`, `NoNode`."""
    said = _said(body)
    pattern = admission.pattern(body.model)
    work: Generation | Run
    offer = offer_of(body.tools, body.tool_choice, body.parallel_tool_calls)
    if pattern is None:
        admission.need_model(body.model, "chat")
        work = Generation(id=work_id, model=body.model, messages=body.messages, offer=offer, **said)
    elif offer is not None:
        raise InvalidRequest(f"tools: {body.model} calls no tools of yours; name a model", param="tools")
    else:
        admission.need_node()
        extension = body.orchestra or Extension()
        if extension.model is not None:
            admission.need_model(extension.model, "chat", param="orchestra.model")
        pattern.set(extension.settings)
        work = Run(
            id=work_id,
            pattern=pattern.name,
            messages=body.messages,
            model=extension.model,
            settings=extension.settings,
            budget=extension.budget,
            **said,
        )
    return _asked(work, ChatShape, body)


def asked_completion(raw: bytes, work_id: str, admission: Admission) -> Asked:
    """Raises `InvalidRequest`, `UnknownModel`, `NoNode`."""
    body = parse(CompletionBody, raw)
    said = _said(body)
    if admission.pattern(body.model) is not None:
        raise InvalidRequest(f"{body.model!r} answers chats: use /v1/chat/completions", param="model")
    admission.need_model(body.model, "chat")
    work = Generation(id=work_id, kind="completion", model=body.model, prompt=body.prompt, **said)
    return _asked(work, CompletionShape, body)


def asked_embedding(raw: bytes, work_id: str, admission: Admission) -> Asked:
    """Raises `InvalidRequest`, `UnknownModel`, `NoNode`."""
    body = parse(EmbeddingBody, raw)
    if admission.pattern(body.model) is not None:
        raise InvalidRequest(f"{body.model!r} answers chats, it makes no embeddings", param="model")
    admission.need_model(body.model, "embedding")
    dimensions = {} if body.dimensions is None else {"dimensions": body.dimensions}
    work = Generation(
        id=work_id, kind="embedding", model=body.model, inputs=body.input, extra=body.extra | dimensions
    )
    shape = EmbeddingShape(
        body.model, len(body.input), base64=body.encoding_format == "base64", dimensions=body.dimensions
    )
    return Asked(work=work, shape=shape, stream=False, cache=body.cache)


def _said(body: ChatBody | CompletionBody) -> _Said:
    try:
        sampling = body.sampling()
    except ValidationError as error:
        raise invalid(error) from error
    guide = guide_of(body.response_format, body.regex if body.regex is not None else body.guided_regex)
    return _Said(sampling=sampling, guide=guide, priority=body.priority, labels=body.labels, extra=body.extra)


def _asked(
    work: Generation | Run, shape: type[ChatShape | CompletionShape], body: ChatBody | CompletionBody
) -> Asked:
    """With the shape of a text's answer."""
    shaped = shape(
        work.id,
        body.model,
        int(time.time()),
        include_usage=body.include_usage,
        logprobs=work.sampling.logprobs,
    )
    return Asked(work=work, shape=shaped, stream=bool(body.stream), cache=body.cache)
