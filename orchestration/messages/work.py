"""Work for the queues: a generation is one model call, a run is one orchestrated request."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from orchestration.messages.chat import ChatMessage, GuidedDecoding, Sampling, TokenId
from orchestration.messages.tools import ToolOffer
from orchestration.messages.wire import Wire


class Priority(StrEnum):
    """The three queues of waiting work, most urgent first."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


class Continuation(Wire):
    """The part of an answer that another node wrote and its reader has: `text`, of `tokens` tokens.

    The next writer continues after it. Its first event has the number `first_seq`, its name is `writer`.
    """

    text: str = ""
    tokens: int = Field(default=0, ge=0)
    first_seq: int = Field(default=0, ge=0)
    writer: str = ""


class Generation(Wire):
    """One model call.

    `id` is `<client>.<number>`, two subject tokens: the client subscribes to `stream.<client>.*` once and
    receives every stream it asked for. Exactly one of `messages` (kind chat), `prompt` (kind completion)
    and `inputs` (kind embedding) is used.
    """

    id: str
    kind: Literal["chat", "completion", "embedding"] = "chat"
    model: str
    messages: tuple[ChatMessage, ...] = ()
    prompt: str = ""
    prompt_ids: tuple[TokenId, ...] = ()
    """The prompt of a completion as tokens of the model's vocabulary, instead of `prompt`."""
    prefill: str = ""
    """The beginning of the answer, set by the caller. The model continues it; the answer is what follows."""
    inputs: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    guide: GuidedDecoding | None = None
    offer: ToolOffer | None = None
    priority: Priority = Priority.INTERACTIVE
    continuation: Continuation | None = None
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
    """See `Generation.extra`: for the generation of every step."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The settings of the pattern, which checks them."""
    budget: Budget = Budget()
