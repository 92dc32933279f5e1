"""The request bodies of the OpenAI API, with the fields that Orchestra uses. Other fields are stored as
`extra`, for upstreams.

`orchestration.messages.Sampling` has the ranges of the sampling parameters, under the same names.
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
"""Maximum size of `extra` as JSON."""
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
    """A body that asks for work. Fields that Orchestra does not know are stored unchanged, for upstreams."""

    model_config = ConfigDict(extra="allow")

    @property
    def extra(self) -> dict[str, Any]:
        """The unknown fields."""
        return self.model_extra or {}

    @model_validator(mode="after")
    def _extra_is_bounded(self) -> Self:
        if not self.model_extra:
            return self
        data = to_json(self.model_extra)
        what = f"the fields that are passed on to an upstream ({', '.join(sorted(self.model_extra))[:200]})"
        if len(data) > MAX_EXTRA_BYTES:
            raise ValueError(f"{what} have {len(data)} bytes as JSON; the limit is {MAX_EXTRA_BYTES}")
        try:
            from_json(b"[[%b]]" % data)  # they are nested deeper in the messages that carry them
        except ValueError:
            raise ValueError(f"{what} are nested too deeply") from None
        return self


def _stops_of(stop: Any) -> Any:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if isinstance(stops, list) and (len(stops) > MAX_STOPS or any(text == "" for text in stops)):
        raise ValueError(f"stop takes up to {MAX_STOPS} texts, none of them empty")
    return stops


def _limit_of(tokens: Any) -> Any:
    """llama.cpp's -1 means unlimited."""
    return None if tokens == -1 else tokens


def _all_tokens_of(top_k: Any) -> Any:
    """vLLM's and llama.cpp's -1 means all tokens, as 0 does."""
    return 0 if top_k == -1 else top_k


def _none_if_false(logprobs: Any) -> Any:
    return None if logprobs is False else logprobs


def _with_logprobs(top: int | None, info: ValidationInfo) -> int | None:
    if top and not info.data.get("logprobs"):
        raise ValueError("top_logprobs is only allowed when logprobs is true")
    return top


def _prompts_of(prompt: Any) -> Any:
    """Return a list of texts and lists of token ids, from any of OpenAI's four forms."""
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
        raise ValueError(f"{len(prompts)} prompts; the limit is {MAX_CHOICES}")
    return prompts


def _is_token(token: Any) -> bool:
    return type(token) is int and 0 <= token < 2**31


def _inputs_of(inputs: Any) -> Any:
    texts = [inputs] if isinstance(inputs, str) else inputs
    if isinstance(texts, list) and texts and isinstance(texts[0], int | list):
        raise ValueError(
            "input must be a text or a list of texts; token ids are not supported, since they belong to "
            "another vocabulary: make the client send texts (LangChain: check_embedding_ctx_length=False)"
        )
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("input must be a text or a list of texts")
    if len(texts) > MAX_INPUTS:
        raise ValueError(f"input has {len(texts)} texts; the limit is {MAX_INPUTS}")
    return texts


def _limits_of(budget: Any) -> Any:
    """Refuse unknown fields: a misspelt limit would be no limit."""
    unknown = sorted(set(budget) - set(Budget.model_fields)) if isinstance(budget, dict) else []
    if unknown:
        raise ValueError(
            f"unknown budget field {unknown[0][:40]!r}; allowed: {', '.join(Budget.model_fields)}"
        )
    return budget


def _refuse_continuous(value: bool | None) -> bool | None:
    if value:
        raise ValueError("not supported: usage comes once, in the last chunk (include_usage)")
    return value


class StreamOptions(Body):
    include_usage: bool | None = None
    """Whether the last chunk of the stream has the usage."""
    continuous_usage_stats: Annotated[bool | None, AfterValidator(_refuse_continuous)] = None
    """Not supported: true is refused."""


def _streamed(options: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
    if options is not None and options.model_fields_set and not info.data.get("stream"):
        raise ValueError("stream_options is only allowed when stream is true")
    return options


LabelText = Annotated[str, Field(min_length=1, max_length=256)]
Labels = Annotated[dict[LabelText, LabelText], Field(max_length=16)]


class StrictBody(Body):
    """A field of Orchestra's own. Unknown fields are refused: a misspelt one would be ignored."""

    model_config = ConfigDict(extra="forbid")


class OrchestraOptions(StrictBody):
    """The field `orchestra` of a request."""

    model: str | None = Field(default=None, min_length=1)
    """Model for all steps of a pattern."""
    priority: Priority = Priority.INTERACTIVE
    """Order in which requests get free slots. Jobs: `standard` (their default) or `batch`."""
    labels: Labels = {}
    """Labels that a node must have, at most 16."""
    settings: dict[str, Any] = {}
    """Settings of the pattern; `GET /v1/patterns` lists them."""
    budget: Annotated[Budget, BeforeValidator(_limits_of)] = Budget()
    """Budget of all steps of a pattern together."""


class CacheOptions(StrictBody):
    """The field `cache` of a request."""

    ttl: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Seconds for which the response is cached, and maximum age of a cached response. 0: no cache."""
    force: bool = False
    """Whether the cache is used although the request is not deterministic."""
    no_store: bool = False
    """Whether the response is neither stored, nor shared, nor taken from the cache."""

    @model_validator(mode="after")
    def _means_one_thing(self) -> Self:
        if self.force and self.no_store:
            raise ValueError("force and no_store contradict each other")
        return self


class SamplingBody(WorkBody, GuideFields):
    """The fields that chats and completions share."""

    model: str = Field(min_length=1)
    """Name of a model from `GET /v1/models`, or `orchestra/PATTERN`."""
    stream: bool | None = None
    """Whether the answer comes as server-sent events. Default: false."""
    stream_options: Annotated[StreamOptions | None, AfterValidator(_streamed)] = None
    """Options of a stream; only with `stream`."""
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    """Number of answers, at most 64. Default: 1."""
    temperature: float | None = None
    """Randomness of the answer, 0 to 2. 0 always takes the most likely token. Default: that of the role or
    the backend."""
    top_p: float | None = None
    """Only the most likely tokens with this probability in total are candidates, above 0 to 1."""
    top_k: Annotated[int | None, BeforeValidator(_all_tokens_of)] = None
    """Only this many of the most likely tokens are candidates; 0 or -1: all."""
    seed: int | None = None
    """Seed of the random choice: the same request with the same seed has the same answer on the same
    backend."""
    max_tokens: Annotated[int | None, BeforeValidator(_limit_of)] = None
    """Maximum tokens of the answer; -1: no limit. Longer answers end with `finish_reason` `length`."""
    stop: Annotated[tuple[str, ...], BeforeValidator(_stops_of)] = ()
    """Text, or up to 4 texts, that end the answer and are not part of it."""
    frequency_penalty: float | None = None
    """Penalty of tokens by how often they are in the answer, -2 to 2."""
    presence_penalty: float | None = None
    """Penalty of tokens that are in the answer, -2 to 2."""
    repetition_penalty: float | None = None
    """Factor by which tokens of prompt and answer become less likely, above 0 to 4; 1: none."""
    cache: CacheOptions | None = None
    """Options of the response cache."""
    orchestra: OrchestraOptions | None = None
    """Options of Orchestra: priority, labels, and the settings and budget of a pattern."""

    @property
    def names(self) -> dict[str, str]:
        """The caller's names of fields of `Sampling`, where they differ."""
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

    def sampling_values(self) -> dict[str, Any]:
        """The sampling parameters that the body sets."""
        values = {name: value for name in _SAMPLING_FIELDS if (value := getattr(self, name)) is not None}
        if self.max_tokens is not None:
            values["max_tokens"] = self.max_tokens
        if self.stop:
            values["stop"] = self.stop
        return values


class ChatBody(SamplingBody):
    """`POST /v1/chat/completions`."""

    messages: ConversationBody = Field(min_length=1)
    """The conversation, as in OpenAI's API. Content may be a text, or a list of text parts."""
    max_completion_tokens: Annotated[int | None, BeforeValidator(_limit_of)] = None
    """Newer name of `max_tokens`."""
    logprobs: bool | None = None
    """Whether the answer has the log probability of each token."""
    top_logprobs: Annotated[int | None, AfterValidator(_with_logprobs)] = None
    """Number of alternatives per token, 0 to 20; only with `logprobs`."""
    tools: Tools | None = None
    """Functions that the model may call, at most 128, as in OpenAI's API."""
    tool_choice: Choice = None
    """`none`, `auto`, `required`, or one function: `{"type": "function", "function": {"name": NAME}}`."""
    parallel_tool_calls: bool | None = None
    """Whether one answer may have several calls."""

    @property
    def names(self) -> dict[str, str]:
        return {} if self.max_completion_tokens is None else {"max_tokens": "max_completion_tokens"}

    def sampling(self, aliased: Mapping[str, Any] = NO_ALIASES) -> Sampling:
        """Return the sampling parameters. `aliased` are values that the caller gave under other names.
        Raises pydantic's `ValidationError` naming a field out of range."""
        values = {**aliased, **self.sampling_values()}
        if self.max_completion_tokens is not None:
            values["max_tokens"] = self.max_completion_tokens
        if self.logprobs:
            values["logprobs"] = True
            values["top_logprobs"] = self.top_logprobs or 0
        return Sampling.model_validate(values) if values else DEFAULT_SAMPLING


class CompletionBody(SamplingBody):
    """`POST /v1/completions`."""

    prompt: Annotated[tuple[str | tuple[TokenId, ...], ...], BeforeValidator(_prompts_of)]
    """Text to continue, or token ids, or a list of either (at most 64 prompts)."""
    logprobs: Annotated[int | None, BeforeValidator(_none_if_false)] = None
    """Number of alternatives per token, 0 to 20; not set: no log probabilities."""

    @property
    def names(self) -> dict[str, str]:
        return {"top_logprobs": "logprobs"}

    def sampling(self, aliased: Mapping[str, Any] = NO_ALIASES) -> Sampling:
        """Return the sampling parameters. `aliased` are values that the caller gave under other names.
        Raises pydantic's `ValidationError` naming a field out of range."""
        values = {**aliased, **self.sampling_values()}
        if self.logprobs is not None:
            values["logprobs"] = True
            values["top_logprobs"] = self.logprobs
        return Sampling.model_validate(values) if values else DEFAULT_SAMPLING


class EmbeddingBody(WorkBody):
    """`POST /v1/embeddings`."""

    model: str = Field(min_length=1)
    """Name of an embedding model."""
    input: Annotated[tuple[str, ...], BeforeValidator(_inputs_of)]
    """Text, or a list of at most 2,048 texts."""
    encoding_format: Literal["float", "base64"] | None = None
    """Format of the vectors. Default: `float`."""
    cache: CacheOptions | None = None
    """Options of the response cache."""
    dimensions: int | None = Field(default=None, ge=1)
    """Length of each vector. A local model has one length; some upstreams can shorten their vectors."""
