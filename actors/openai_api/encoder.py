"""How an answer looks on the outside, whichever face it leaves by.

A shape is made per request. Either `encode_event` is called for every event of the stream and what it returns
goes out at once, or `add` for every event and `encode_full` at the end.
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
    """An event of the answer with this index, where a request has several."""

    index: int
    event: StreamEvent


Event = StreamEvent | ChoiceEvent


class ResponseEncoder(ABC):
    """`encode_event` and `encode_full` give JSON; framing (SSE, NATS messages) is the face's."""

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
    """What answers made of text share: the gathered text, its log probabilities, and the end."""

    index: int = 0
    """Of the choice, where a request has several answers."""

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
        """The last object of a stream whose caller asked for its usage."""

    def end(self) -> StreamEnd:
        if self.ended is None:
            raise BackendFailed("the answer ended without saying so")
        return self.ended

    def orchestra(self, ended: StreamEnd) -> dict[str, Any]:
        """Orchestra's own field of the answer."""
        said: dict[str, Any] = {
            "run": self.work_id,
            "node": ended.finish.node,
            "model": ended.finish.model or self.model,
            "steps": [],
        }
        if isinstance(ended, RunEnd):
            said["steps"] = [step.model_dump(mode="json", exclude_none=True) for step in ended.steps]
        if isinstance(ended, RunEnd) and ended.accounts is not None:
            models = ended.accounts.by_model.items()
            said["usage"] = {
                "by_model": {model: usage_json(usage) for model, usage in models},
                "discarded": usage_json(ended.accounts.discarded),
            }
        if ended.trace_id or self.trace_id:
            said["trace_id"] = ended.trace_id or self.trace_id
        if self.notes or ended.finish.notes:
            said["notes"] = [*self.notes, *ended.finish.notes]
        if isinstance(ended, RunEnd) and ended.report:
            said["report"] = ended.report
        return said | {"cache": self.origin} if self.origin else said


def finish_reason(ended: StreamEnd) -> str:
    """OpenAI's word for why it ended. Raises `Cancelled` for work that somebody took back."""
    reason = ended.finish.reason
    if reason == "cancelled":
        raise Cancelled("the request was cancelled")
    if reason == "error":
        raise BackendFailed("the answer ended with an error that nobody described")
    return reason


def usage_json(usage: Usage, *, text: bool = True) -> dict[str, Any]:
    """OpenAI's `usage`; with `estimated: true` where the model's side reported no tokens."""
    shaped: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if text:
        shaped["completion_tokens"] = usage.completion_tokens
        shaped["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
        if usage.reasoning_tokens:
            shaped["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    if usage.estimated:
        shaped["estimated"] = True
    return shaped


def error_json(error: OrchestraError) -> bytes:
    """OpenAI's error body: message, type, param and our own stable code."""
    if error.status == 429:
        kind = "rate_limit_error"
    elif error.status < 500:
        kind = "invalid_request_error"
    else:
        kind = "server_error"
    return to_json(
        {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}
    )
