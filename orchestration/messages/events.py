"""The events of a stream: deltas of text, vectors, progress, and one end, which says how it finished.

A stream carries `EventFrame`s, `{"seq": 3, "event": {"type": "text_delta", …}}` as JSON, one or more in a
message. There is one object per token on this way, so a delta is a dataclass, which is built faster than a
pydantic model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast

from pydantic import Field, TypeAdapter

from orchestration.messages.tools import ToolCall
from orchestration.wire import ErrorBody, Wire, tag


class Usage(Wire):
    """Tokens read and written. `cached_tokens` of the prompt were reused from a shared prefix, and
    `reasoning_tokens` of those written do not belong to the answer's text.

    `estimated` marks counts that were derived from the text because the model's side reported no tokens.
    """

    prompt_tokens: int = 0
    """Tokens of prompts."""
    completion_tokens: int = 0
    """Tokens generated."""
    cached_tokens: int = 0
    """Prompt tokens that were reused from the prefix cache."""
    reasoning_tokens: int = 0
    """Generated tokens that are not part of the answer's text."""
    estimated: bool = False
    """Whether the counts were estimated from the text, because the backend reported none."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            estimated=self.estimated or other.estimated,
        )


class TopLogprob(Wire):
    """The natural-log probability of one token that could have been emitted."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()


class TokenLogprob(Wire):
    """The natural-log probability of one emitted token, and of the likeliest alternatives."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()
    top_logprobs: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """Text of one or more tokens, as a model writes it. `text` is whole UTF-8 and may be empty while a
    character is incomplete. `reasoning` is what the model writes before its answer; it comes before `text`.

    With `replaces` above 0 the text takes the place of all text before it. An answer that is not streamed
    then contains nothing of what came before, nor the first `replaces` characters, such as "Correction: ".
    """

    text: str
    tokens: int = 1
    logprobs: tuple[TokenLogprob, ...] | None = None
    reasoning: str = ""
    replaces: Annotated[int, Field(ge=0)] = 0
    type: Literal["text_delta"] = "text_delta"


@dataclass(slots=True)
class JoinedText:
    """The deltas of one answer, joined as a caller reads it that does not stream."""

    tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)

    def add(self, delta: TextDelta) -> None:
        if delta.replaces:
            self._texts.clear()
            self.logprobs.clear()
        self._texts.append(delta.text[delta.replaces :])
        self._reasoning.append(delta.reasoning)
        self.tokens += delta.tokens
        if delta.logprobs:
            self.logprobs.extend(delta.logprobs)

    def __bool__(self) -> bool:
        """Whether there were any deltas."""
        return bool(self._texts)

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def delta(self) -> TextDelta:
        """All of it as one delta."""
        logprobs = tuple(self.logprobs) or None
        return TextDelta(text=self.text, tokens=self.tokens, logprobs=logprobs, reasoning=self.reasoning)


class Vectors(Wire):
    """Embeddings of `inputs[index : index + len(vectors)]`, each base64 of little-endian float32."""

    type: Literal["vectors"] = tag("vectors")
    index: int
    vectors: tuple[str, ...]


FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "error"]
"""The text is cut off if the reason is `length` or `content_filter`."""


class Finish(Wire):
    """How a generation, a step or a run finished: why, what it used, and which node and model wrote it.

    `calls` are complete and come only here, so that a generation which moves to another node writes them
    again; the same holds for `refusal`, the model's own words for not answering. `notes` are warnings for
    the caller about the answer.
    """

    reason: FinishReason
    usage: Usage = Usage()
    node: str = ""
    model: str = ""
    calls: tuple[ToolCall, ...] = ()
    refusal: str = ""
    notes: tuple[str, ...] = ()


class Step(Wire):
    """One finished step of a run, as `orchestra ask --json` shows it. With `tool` it is not a generation:
    the agent used that tool. A step that failed has its `error`; one that its pattern stopped has the
    finish_reason `cancelled`. Their text and usage are what arrived until then."""

    name: str
    """Name of the step, unique in the run."""
    agent: str
    """Name of the agent."""
    tool: str = ""
    """Name of the tool, for a call of a tool; otherwise empty."""
    node: str = ""
    """Id of the node that generated the text."""
    model: str = ""
    """Name of the model that generated the text."""
    text: str = ""
    """The text of the answer, or the result of the tool."""
    finish_reason: FinishReason = "stop"
    """Why the text ended; `cancelled` if the pattern stopped the step."""
    usage: Usage = Usage()
    """Tokens of the step."""
    seconds: float = 0.0
    """Duration of the step."""
    error: ErrorBody | None = None
    """The error of a failed step; else null."""

    @property
    def discarded(self) -> bool:
        """Whether no answer contains what it wrote."""
        return self.error is not None or self.finish_reason == "cancelled"


class Accounts(Wire):
    """Tokens of a run by model, and those of steps that failed or were stopped."""

    by_model: dict[str, Usage] = Field(default_factory=dict)
    discarded: Usage = Usage()


class Progress(Wire):
    """What a run is doing, as text for people. `step` is set when a step has finished."""

    type: Literal["progress"] = tag("progress")
    text: str
    step: Step | None = None


class WriterAlive(Wire):
    """A writer without text tells its reader that it works. It has no number among the events."""

    type: Literal["writer_alive"] = tag("writer_alive")


class StreamEnd(Wire):
    """The last event of a stream, always sent. `writing_s` is the time in seconds from the stream's first
    event to this one, measured by the writer. `finish.reason` is `error` or `cancelled` where `error` is set.
    """

    finish: Finish
    error: ErrorBody | None = None
    trace_id: str = ""
    writing_s: float = 0.0


class GenerationEnd(StreamEnd):
    """The end of a generation. `events` is the number of events before it, `ended_at` the Unix time in
    seconds at which its writer ended it, `load_s` the seconds for which it waited for its model to load."""

    type: Literal["generation_end"] = tag("generation_end")
    events: int = 0
    ended_at: float = 0.0
    load_s: float = 0.0


class RunEnd(StreamEnd):
    """The end of a run. `report` is what its pattern found beside the answer, `accounts` say which models
    used the tokens of `finish.usage`."""

    type: Literal["run_end"] = tag("run_end")
    steps: tuple[Step, ...] = ()
    report: dict[str, Any] = Field(default_factory=dict)
    accounts: Accounts | None = None


End = Annotated[GenerationEnd | RunEnd, Field(discriminator="type")]
StreamEvent = Annotated[TextDelta | Vectors | Progress | GenerationEnd | RunEnd, Field(discriminator="type")]


@dataclass(frozen=True, slots=True)
class EventFrame:
    """One message of a stream. `seq` counts up from 0 without a gap; a negative one is outside the order."""

    seq: int
    event: Annotated[StreamEvent | WriterAlive, Field(discriminator="type")]


FRAME_SEPARATOR = b"\n"
"""Between two frames of one message. JSON has none inside."""
_FRAME = TypeAdapter(EventFrame).validator
_TEXT = TypeAdapter(TextDelta).serializer


def encode_event(seq: int, event: TextDelta | Vectors | Progress | WriterAlive | StreamEnd) -> bytes:
    """An `EventFrame` as JSON. A delta is written without its defaults, and so is read faster.

    Raises pydantic's `PydanticSerializationError` for a report that is not JSON.
    """
    if isinstance(event, TextDelta):
        fields = _TEXT.to_json(event, exclude_defaults=True)  # never empty: `text` has no default
        return b'{"seq":%d,"event":{"type":"text_delta",%b}' % (seq, fields[1:])
    return b'{"seq":%d,"event":%b}' % (seq, event.model_dump_json().encode())


def decode_event(data: bytes) -> EventFrame:
    """Raises pydantic's `ValidationError`."""
    return cast(EventFrame, _FRAME.validate_json(data))


def decode_events(data: bytes) -> list[EventFrame]:
    """The frames of one message. Raises pydantic's `ValidationError`."""
    if FRAME_SEPARATOR not in data:
        return [decode_event(data)]
    return [decode_event(frame) for frame in data.split(FRAME_SEPARATOR)]
