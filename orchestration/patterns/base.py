"""Steps: what is asked, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from orchestration.messages import (
    ChatMessage,
    Finish,
    GuidedDecoding,
    Priority,
    Sampling,
    Step,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAccepted:
    """The step goes to a node that serves `model`."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """A finished step: its whole text, how it finished, and the seconds it took."""

    text: str
    finish: Finish
    seconds: float

    @classmethod
    def of(cls, step: Step) -> Self:
        finish = Finish(reason=step.finish_reason, usage=step.usage, node=step.node, model=step.model)
        return cls(text=step.text, finish=finish, seconds=step.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """How a step is asked for. `sampling` names only what the step cares about: the role's parameters fill
    the rest. `model` goes over the run's. `after` are the steps that it builds on, as those who watch are
    told; None takes those that ended before this one and all at work beside it began."""

    sampling: Sampling | None = None
    guide: GuidedDecoding | None = None
    model: str | None = None
    after: Sequence[str] | None = None


NO_OPTIONS = StepOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One step to be done by `agent`. `sampling` says only what the step cares about: the agent's
    profile fills the rest, and its role prompt goes before `messages`. The answer goes on from `prefix`,
    which is not said again. It has `seconds` at most, where that is set."""

    name: str
    agent: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    guide: GuidedDecoding | None
    model: str | None
    priority: Priority
    labels: dict[str, str]
    extra: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""
    prefix_tokens: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """One use of a tool by `agent`, which is a step too. `arguments` are JSON. It has `seconds` at most,
    where that is set."""

    name: str
    agent: str
    tool: str
    arguments: Mapping[str, Any]
    seconds: float | None = None
