"""The request bodies of the OpenAI API, as far as Orchestra takes them. Fields that it does not use are kept
beside them as `extra`, for upstreams.

Ranges of sampling parameters are not repeated here: `orchestration.messages.Sampling` has them under the
same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)
from pydantic_core import from_json, to_json

from actors.gateway.chat_messages import ConversationBody
from actors.gateway.choices import MAX_CHOICES
from actors.gateway.guided_decoding import GuideFields
from actors.gateway.tool_bodies import Choice, Tools
from orchestration.messages import Budget, Priority, Sampling, TokenId

MAX_STOPS = 4
MAX_INPUTS = 2048
MAX_EXTRA_BYTES = 131_072
"""Of the fields that Orchestra does not use, together, as JSON."""
DEFAULT_SAMPLING = Sampling()
NO_ALIASES: Mapping[str, Any] = {}
_SAMPLING_FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
)


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class WorkBody(Body):
    """A body that asks for work. What an upstream may know and Orchestra does not is kept as it came."""

    model_config = ConfigDict(extra="allow")

    @property
    def extra(self) -> dict[str, Any]:
        """The fields that are none of this body's own."""
        return self.model_extra or {}

    @model_validator(mode="after")
    def _extra_is_bounded(self) -> Self:
        if not self.model_extra:
            return self
        data = to_json(self.model_extra)
        what = f"the fields that are passed on to an upstream ({', '.join(sorted(self.model_extra))[:200]})"
        if len(data) > MAX_EXTRA_BYTES:
            raise ValueError(f"{what} have {len(data)} bytes, and up to {MAX_EXTRA_BYTES} are taken")
        try:
            from_json(b"[[%b]]" % data)  # on their way they lie deeper than in this body
        except ValueError:
            raise ValueError(f"{what} are nested too deeply") from None
        return self


def _stops_of(stop: Any) -> Any:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if isinstance(stops, list) and (len(stops) > MAX_STOPS or any(text == "" for text in stops)):
        raise ValueError(f"stop takes up to {MAX_STOPS} texts, none of them empty")
    return stops


def _limit_of(tokens: Any) -> Any:
    """llama.cpp's -1 is no limit."""
    return None if tokens == -1 else tokens


def _all_tokens_of(top_k: Any) -> Any:
    """vLLM's and llama.cpp's -1 is all tokens, as 0 is."""
    return 0 if top_k == -1 else top_k


def _none_if_false(logprobs: Any) -> Any:
    return None if logprobs is False else logprobs


def _with_logprobs(top: int | None, info: ValidationInfo) -> int | None:
    if top and not info.data.get("logprobs"):
        raise ValueError("top_logprobs is only allowed when logprobs is true")
    return top


def _prompts_of(prompt: Any) -> Any:
    """A tuple of texts and of lists of token ids, whichever of OpenAI's four forms came."""
    is_one = isinstance(prompt, str) or (
        isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], str | list)
    )
    prompts = [prompt] if is_one else prompt
    if not isinstance(prompts, list) or not prompts:
        raise ValueError("prompt must be a text, a list of texts, token ids, or a list of lists of them")
    for each in prompts:
        is_ids = isinstance(each, list) and bool(each) and all(_is_token(token) for token in each)
        if not isinstance(each, str) and not is_ids:
            raise ValueError("prompt must be a text, a list of texts, token ids, or a list of lists of them")
    if len(prompts) > MAX_CHOICES:
        raise ValueError(f"{len(prompts)} prompts; up to {MAX_CHOICES} are taken at once")
    return prompts


def _is_token(token: Any) -> bool:
    return type(token) is int and 0 <= token < 2**31


def _inputs_of(inputs: Any) -> Any:
    texts = [inputs] if isinstance(inputs, str) else inputs
    if isinstance(texts, list) and texts and isinstance(texts[0], int | list):
        raise ValueError(
            "input must be a text or a list of texts; token ids are not supported, as they are of another "
            "vocabulary: have the client send texts (LangChain: check_embedding_ctx_length=False)"
        )
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("input must be a text or a list of texts")
    if len(texts) > MAX_INPUTS:
        raise ValueError(f"input has {len(texts)} texts; up to {MAX_INPUTS} are taken at once")
    return texts


def _limits_of(budget: Any) -> Any:
    """A limit that is misspelt would be none."""
    unknown = sorted(set(budget) - set(Budget.model_fields)) if isinstance(budget, dict) else []
    if unknown:
        raise ValueError(
            f"unknown budget field {unknown[0][:40]!r}; allowed: {', '.join(Budget.model_fields)}"
        )
    return budget


def _refuse_continuous(wanted: bool | None) -> bool | None:
    if wanted:
        raise ValueError("not supported: usage comes once, in the last chunk (include_usage)")
    return wanted


class StreamOptions(Body):
    include_usage: bool | None = None
    continuous_usage_stats: Annotated[bool | None, AfterValidator(_refuse_continuous)] = None


def _streamed(options: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
    if options is not None and options.model_fields_set and not info.data.get("stream"):
        raise ValueError("stream_options is only allowed when stream is true")
    return options


LabelText = Annotated[str, Field(min_length=1, max_length=256)]
Labels = Annotated[dict[LabelText, LabelText], Field(max_length=16)]


class StrictBody(Body):
    """What no other server knows: a field that is misspelt is one that would be ignored."""

    model_config = ConfigDict(extra="forbid")


class OrchestraOptions(StrictBody):
    """Orchestra's own field, `orchestra`, of a chat request."""

    model: str | None = Field(default=None, min_length=1)
    """For a pattern: the model that every step should use."""
    priority: Priority = Priority.INTERACTIVE
    labels: Labels = {}
    """What the nodes that work on it must have."""
    settings: dict[str, Any] = {}
    """For a pattern: its settings."""
    budget: Annotated[Budget, BeforeValidator(_limits_of)] = Budget()
    """For a pattern: what all its steps together may use."""


class CacheOptions(StrictBody):
    """Orchestra's own field `cache`: what the caller says of kept answers."""

    ttl: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Seconds to keep the answer, and the most that a kept one may be old."""
    force: bool = False
    """Any answer to the same request will do, though another might be given now."""
    no_store: bool = False
    """Neither keep nor share this answer, and give none that was kept."""

    @model_validator(mode="after")
    def _means_one_thing(self) -> Self:
        if self.force and self.no_store:
            raise ValueError("force and no_store contradict each other")
        return self


class SamplingBody(WorkBody, GuideFields):
    """What chats and completions share."""

    model: str = Field(min_length=1)
    stream: bool | None = None
    stream_options: Annotated[StreamOptions | None, AfterValidator(_streamed)] = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    temperature: float | None = None
    top_p: float | None = None
    top_k: Annotated[int | None, BeforeValidator(_all_tokens_of)] = None
    seed: int | None = None
    max_tokens: Annotated[int | None, BeforeValidator(_limit_of)] = None
    stop: Annotated[tuple[str, ...], BeforeValidator(_stops_of)] = ()
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    cache: CacheOptions | None = None
    orchestra: OrchestraOptions | None = None

    @property
    def names(self) -> dict[str, str]:
        """By fields of `Sampling`, what the caller calls them."""
        return {}

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def priority(self) -> Priority:
        return Priority.INTERACTIVE if self.orchestra is None else self.orchestra.priority

    @property
    def labels(self) -> dict[str, str]:
        return {} if self.orchestra is None else self.orchestra.labels

    def said(self) -> dict[str, Any]:
        """The sampling parameters that the caller gave a value to."""
        values = {name: value for name in _SAMPLING_FIELDS if (value := getattr(self, name)) is not None}
        if self.max_tokens is not None:
            values["max_tokens"] = self.max_tokens
        if self.stop:
            values["stop"] = self.stop
        return values


class ChatBody(SamplingBody):
    """`POST /v1/chat/completions`."""

    messages: ConversationBody = Field(min_length=1)
    max_completion_tokens: Annotated[int | None, BeforeValidator(_limit_of)] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, AfterValidator(_with_logprobs)] = None
    tools: Tools | None = None
    tool_choice: Choice = None
    parallel_tool_calls: bool | None = None

    @property
    def names(self) -> dict[str, str]:
        return {} if self.max_completion_tokens is None else {"max_tokens": "max_completion_tokens"}

    def sampling(self, aliased: Mapping[str, Any] = NO_ALIASES) -> Sampling:
        """`aliased` was said by other names. Raises pydantic's `ValidationError` naming the field out of
        range."""
        values = {**aliased, **self.said()}
        if self.max_completion_tokens is not None:
            values["max_tokens"] = self.max_completion_tokens
        if self.logprobs:
            values["logprobs"] = True
            values["top_logprobs"] = self.top_logprobs or 0
        return Sampling.model_validate(values) if values else DEFAULT_SAMPLING


class CompletionBody(SamplingBody):
    """`POST /v1/completions`."""

    prompt: Annotated[tuple[str | tuple[TokenId, ...], ...], BeforeValidator(_prompts_of)]
    logprobs: Annotated[int | None, BeforeValidator(_none_if_false)] = None

    @property
    def names(self) -> dict[str, str]:
        return {"top_logprobs": "logprobs"}

    def sampling(self, aliased: Mapping[str, Any] = NO_ALIASES) -> Sampling:
        """`aliased` was said by other names. Raises pydantic's `ValidationError` naming the field out of
        range."""
        values = {**aliased, **self.said()}
        if self.logprobs is not None:
            values["logprobs"] = True
            values["top_logprobs"] = self.logprobs
        return Sampling.model_validate(values) if values else DEFAULT_SAMPLING


class EmbeddingBody(WorkBody):
    """`POST /v1/embeddings`."""

    model: str = Field(min_length=1)
    input: Annotated[tuple[str, ...], BeforeValidator(_inputs_of)]
    encoding_format: Literal["float", "base64"] | None = None
    cache: CacheOptions | None = None
    dimensions: int | None = Field(default=None, ge=1)
    """Of each vector. A local model's are as long as they are; an upstream may be able to shorten its own."""
