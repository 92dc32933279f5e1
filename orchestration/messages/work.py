"""Work for the queues: a generation is one model call, a run is one orchestrated request."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field, TypeAdapter

from orchestration.messages.chat import ChatMessage, GuidedDecoding, Sampling, TokenId
from orchestration.messages.tools import ToolOffer
from orchestration.priority import Priority
from orchestration.wire import Wire, tag


class Continuation(Wire):
    """The part of an answer that another node wrote and its reader has: `text`, of `tokens` tokens.

    The next writer continues after it. Its first event has the number `first_seq`, its name is `writer`.
    """

    text: str = ""
    tokens: int = Field(default=0, ge=0)
    first_seq: int = Field(default=0, ge=0)
    writer: str = ""


class BaseGeneration(Wire):
    """What the generations of every kind have.

    `id` is `<client>.<number>`, two subject tokens: the client subscribes to `stream.<client>.*` once and
    receives every stream it asked for.
    """

    id: str
    model: str
    sampling: Sampling = Sampling()
    guide: GuidedDecoding | None = None
    priority: Priority = Priority.INTERACTIVE
    continuation: Continuation | None = None
    streamed: bool = True
    """Whether the caller reads the text while it is written. Otherwise it comes in fewer messages."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels that the node must have: see `orchestration.placement.needs`."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Fields of the caller's body that Orchestra does not use. An upstream receives them unchanged."""

    @property
    def prefix(self) -> str:
        """The text that the answer goes on from."""
        return self.continuation.text if self.continuation else ""

    @property
    def prefix_tokens(self) -> int:
        return self.continuation.tokens if self.continuation else 0


class ChatGeneration(BaseGeneration):
    """The next message of a conversation."""

    kind: Literal["chat"] = tag("chat")
    messages: tuple[ChatMessage, ...] = ()
    prefill: str = ""
    """The beginning of the answer, set by the caller. The model continues it; the answer is what follows."""
    offer: ToolOffer | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that the model reads."""
        return tuple(message.content for message in self.messages)


class CompletionGeneration(BaseGeneration):
    """The text that follows a prompt."""

    kind: Literal["completion"] = tag("completion")
    prompt: str = ""
    prompt_ids: tuple[TokenId, ...] = ()
    """The prompt as tokens of the model's vocabulary, instead of `prompt`."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that the model reads."""
        return (self.prompt,) if self.prompt else ()


class EmbeddingGeneration(BaseGeneration):
    """The vectors of texts."""

    kind: Literal["embedding"] = tag("embedding")
    inputs: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that the model reads."""
        return self.inputs


TextGeneration = ChatGeneration | CompletionGeneration
"""One model call that writes text."""
Generation = Annotated[
    ChatGeneration | CompletionGeneration | EmbeddingGeneration, Field(discriminator="kind")
]
"""One model call."""

_GENERATION = TypeAdapter[Generation](Generation).validator


def decode_generation(data: bytes) -> Generation:
    """Raises pydantic's `ValidationError`."""
    return cast(Generation, _GENERATION.validate_json(data))


class Budget(Wire):
    """Limits of a run; null: no limit."""

    tokens: int | None = Field(default=None, ge=1)
    """Maximum tokens of prompts and answers of all steps."""
    seconds: float | None = Field(default=None, gt=0)
    """Maximum duration in seconds."""
    calls: int | None = Field(default=None, ge=1)
    """Maximum calls of models."""


class Run(Wire):
    """One orchestrated request: a pattern and the conversation it is about."""

    kind: Literal["run"] = tag("run")
    id: str
    pattern: str
    messages: tuple[ChatMessage, ...]
    model: str | None = None
    """The caller's model for every step; None leaves the choice to the roles."""
    sampling: Sampling = Sampling()
    guide: GuidedDecoding | None = None
    priority: Priority = Priority.INTERACTIVE
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels that the node of every step must have."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """See `BaseGeneration.extra`: for the generation of every step."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The settings of the pattern, which checks them."""
    budget: Budget = Budget()

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the conversation."""
        return tuple(message.content for message in self.messages)


Work = Annotated[
    ChatGeneration | CompletionGeneration | EmbeddingGeneration | Run, Field(discriminator="kind")
]
"""What a queue has: one model call, or one orchestrated request."""
