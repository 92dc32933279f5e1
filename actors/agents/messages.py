"""What agents are told, and what they say, beside generations and runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from orchestration.messages import ChatMessage, Guide, Priority, Sampling, Wire


class AskAgent(Wire):
    """Do one step. `id` is an asker's: the events of the step go to `stream.<id>`.

    `sampling` goes over the agent's profile, `model` over its preference. The answer goes on from `prefix`.
    """

    id: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling = Sampling()
    guide: Guide | None = None
    model: str | None = None
    priority: Priority = Priority.INTERACTIVE
    labels: dict[str, str] = Field(default_factory=dict)
    extra: dict[str, Any] = Field(default_factory=dict)
    prefix: str = ""
    prefix_tokens: int = Field(default=0, ge=0)


class AgentAsked(Wire):
    """The step waits for a node that serves `model`."""

    model: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of the Synadia Agent Protocol."""

    text: str


class PromptChunk(Wire):
    """A chunk of the answer to a prompt. Callers ignore types they do not know, such as `progress`."""

    type: Literal["status", "response", "progress"]
    data: str


ACK = PromptChunk(type="status", data="ack")


@dataclass(frozen=True, slots=True)
class AskStatus:
    """The protocol's `status` request."""


class Heartbeat(Wire):
    """The protocol's sign of life; `ts` is UTC in ISO 8601, `interval_s` seconds."""

    agent: str
    owner: str
    session: str
    instance_id: str
    ts: str
    interval_s: int
