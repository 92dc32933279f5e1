"""The encoders of responses, for HTTP and NATS alike.

Each request has its own encoder. For a stream, call `encode_event` with each event and send what it returns.
For a complete response, call `add` with each event and `encode_full` at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from orchestration.errors import BackendFailed, Cancelled, OrchestraError
from orchestration.messages import JoinedText, RunEnd, StreamEnd, StreamEvent, TextDelta, Usage


@dataclass(frozen=True, slots=True)
class ChoiceEvent:
    """An event of the choice with this index, for a request with several choices."""

    index: int
    event: StreamEvent


Event = StreamEvent | ChoiceEvent


class ResponseEncoder(ABC):
    """`encode_event` and `encode_full` return JSON; HTTP and NATS add their framing (SSE, messages)."""

    trace_id: str = ""
    """The request's trace, for a response whose `StreamEnd` has none; '' if the request is not traced."""
    origin: str = ""
    """`hit` (cached), `shared` (an equal request was in progress) or `miss` (generated now); '' for a request
    that is not cached."""
    notes: tuple[str, ...] = ()
    """The gateway's notes on the request; the notes of the work follow them."""

    def describe(self, trace_id: str, origin: str) -> None:
        """Set what is known only once the response begins. Call it before the first event."""
        self.trace_id, self.origin = trace_id, origin

    def encode_opening(self) -> tuple[bytes, ...]:
        """The objects to send before the first event, for clients that get no headers: they name the work."""
        return ()

    @abstractmethod
    def encode_event(self, event: Event) -> tuple[bytes, ...]:
        """The objects to send for one event of a stream: usually one, sometimes none or two."""

    @abstractmethod
    def add(self, event: Event) -> None:
        """Store one event for `encode_full`."""

    @abstractmethod
    def encode_full(self) -> bytes:
        """The complete response, after `add` got a `StreamEnd`."""


class TextEncoder(ResponseEncoder):
    """The part that text responses share: the joined text, its log probabilities, and the end."""

    index: int = 0
    """The index of the choice, for a request with several choices."""

    def __init__(
        self, work_id: str, model: str, created: int, *, include_usage: bool, logprobs: bool
    ) -> None:
        self.work_id = work_id
        self.model = model
        self.created = created
        self.include_usage = include_usage
        self.logprobs = logprobs
        self.joined = JoinedText()
        self.ended: StreamEnd | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, TextDelta):
            self.joined.add(event)
        elif isinstance(event, StreamEnd):
            self.ended = event

    @abstractmethod
    def encode_usage(self, usage: Usage) -> bytes:
        """Return the last object of a stream with `include_usage`."""

    def end(self) -> StreamEnd:
        if self.ended is None:
            raise BackendFailed("the stream ended without its last event")
        return self.ended

    def orchestra(self, ended: StreamEnd) -> dict[str, Any]:
        """Return the field `orchestra` of the response."""
        fields: dict[str, Any] = {
            "run": self.work_id,
            "node": ended.finish.node,
            "model": ended.finish.model or self.model,
            "steps": [],
        }
        if isinstance(ended, RunEnd):
            fields["steps"] = [step.model_dump(mode="json", exclude_none=True) for step in ended.steps]
        if isinstance(ended, RunEnd) and ended.accounts is not None:
            models = ended.accounts.by_model.items()
            fields["usage"] = {
                "by_model": {model: usage_json(usage) for model, usage in models},
                "discarded": usage_json(ended.accounts.discarded),
            }
        if ended.trace_id or self.trace_id:
            fields["trace_id"] = ended.trace_id or self.trace_id
        if self.notes or ended.finish.notes:
            fields["notes"] = [*self.notes, *ended.finish.notes]
        if isinstance(ended, RunEnd) and ended.report:
            fields["report"] = ended.report
        return fields | {"cache": self.origin} if self.origin else fields


def finish_reason(ended: StreamEnd) -> str:
    """Return OpenAI's finish reason. Raises `Cancelled` for work that was cancelled."""
    reason = ended.finish.reason
    if reason == "cancelled":
        raise Cancelled("the request was cancelled")
    if reason == "error":
        raise BackendFailed("the work failed without an error message")
    return reason


def usage_json(usage: Usage, *, text: bool = True) -> dict[str, Any]:
    """Return OpenAI's `usage`, with `estimated: true` if the model's server reported no tokens."""
    fields: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if text:
        fields["completion_tokens"] = usage.completion_tokens
        fields["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
        if usage.reasoning_tokens:
            fields["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    if usage.estimated:
        fields["estimated"] = True
    return fields


def error_json(error: OrchestraError) -> bytes:
    """Return OpenAI's error body: message, type, param, and Orchestra's stable code."""
    if error.status == 429:
        kind = "rate_limit_error"
    elif error.status < 500:
        kind = "invalid_request_error"
    else:
        kind = "server_error"
    return to_json(
        {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}
    )
