"""The span of one model call: `chat MODEL`, of kind CLIENT, with its tokens, as the GenAI conventions have
it.

It is where the caller of the model is, and there is exactly one, however many nodes the call is sent to:
these are below it. So the tokens of a trace are the sum over these spans.
"""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from actors.runtime.envelope import Envelope
from actors.streams.reader import StreamReader
from actors.telemetry import conventions as names
from actors.telemetry.tracing import OpenSpan, start_span, tracing
from orchestration.messages import (
    ChatGeneration,
    EmbeddingGeneration,
    Finish,
    Generation,
    JoinedText,
    StreamEnd,
    StreamEvent,
    TextDelta,
)

_OPERATIONS = {"chat": names.CHAT, "completion": names.TEXT_COMPLETION, "embedding": names.EMBEDDINGS}


class ModelCallSpan:
    """A model call that is traced. It observes the events of the call's stream."""

    def __init__(self, span: OpenSpan, work: Generation) -> None:
        self.traceparent = span.traceparent
        self._span = span
        self._awaits_first = True
        self._answer = JoinedText() if tracing.content is not None else None

    def observe(self, event: StreamEvent, reader: StreamReader) -> None:
        """Take the next event of the stream that `reader` reads."""
        if isinstance(event, TextDelta):
            if self._awaits_first and reader.first_text_s:
                self._awaits_first = False
                self._span.set({names.TIME_TO_FIRST_CHUNK: reader.first_text_s})
            if self._answer is not None:
                self._answer.add(event)
        elif isinstance(event, StreamEnd):
            self._span.set(_finish_attributes(event.finish))
            if self._answer is not None and tracing.content is not None:
                text = tracing.content.redact(_answer_json(self._answer, event.finish))
                self._span.set({names.OUTPUT_MESSAGES: text})

    def __enter__(self) -> ModelCallSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._span.end(error)


def start_model_call(work: Generation, envelope: Envelope) -> ModelCallSpan | None:
    """The span of `work`; None where it is not recorded."""
    if tracing.tracer is None:
        return None
    operation = _OPERATIONS[work.kind]
    is_embedding = isinstance(work, EmbeddingGeneration)
    attributes: dict[str, AttributeValue] = {
        names.OPERATION_NAME: operation,
        names.PROVIDER_NAME: names.PROVIDER,
        names.REQUEST_MODEL: work.model,
        names.SPAN_KIND: names.EMBEDDING if is_embedding else names.LLM,
        names.RESPONSE_ID: work.id,
        names.PRIORITY: work.priority.value,
    }
    if not is_embedding:
        attributes[names.REQUEST_STREAM] = work.streamed
    if envelope.caller:
        attributes[names.USER_ID] = envelope.caller
    if work.sampling.max_tokens is not None:
        attributes[names.REQUEST_MAX_TOKENS] = work.sampling.max_tokens
    span = start_span(f"{operation} {work.model}", envelope.trace, attributes, kind=SpanKind.CLIENT)
    if not span.recording:
        return None
    if tracing.content is not None:
        span.set({names.INPUT_MESSAGES: tracing.content.redact(_input_json(work))})
    return ModelCallSpan(span, work)


def _finish_attributes(finish: Finish) -> dict[str, AttributeValue]:
    usage = finish.usage
    found: dict[str, AttributeValue] = {
        names.FINISH_REASONS: (finish.reason,),
        names.INPUT_TOKENS: usage.prompt_tokens,
        names.OUTPUT_TOKENS: usage.completion_tokens,
        names.RESPONSE_MODEL: finish.model,
        names.NODE: finish.node,
    }
    if usage.cached_tokens:
        found[names.CACHED_TOKENS] = usage.cached_tokens
    if usage.reasoning_tokens:
        found[names.REASONING_TOKENS] = usage.reasoning_tokens
    return found


def _input_json(work: Generation) -> str:
    if isinstance(work, ChatGeneration):
        found = [_message(message.role, message.content) for message in work.messages]
    else:
        found = [_message("user", text) for text in work.texts]
    return json.dumps(found, ensure_ascii=False)


def _answer_json(answer: JoinedText, finish: Finish) -> str:
    message = _message("assistant", answer.text or finish.refusal)
    calls = [{"type": "tool_call", "name": call.name, "arguments": call.arguments} for call in finish.calls]
    found = message | {"parts": [*message["parts"], *calls], "finish_reason": finish.reason}
    return json.dumps([found], ensure_ascii=False)


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}
