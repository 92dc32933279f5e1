"""Messages of the Synadia Agent Protocol: prompts, status requests and heartbeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestration.messages import Wire


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
