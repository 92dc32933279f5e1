"""What a pattern is made of: steps that are asked, what comes of them, and who does them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestration.messages import (
    ChatMessage,
    FinishReason,
    Guide,
    Priority,
    Sampling,
    Step,
    TokenLogprob,
    Tool,
    ToolResult,
    Usage,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Text of one or more tokens, as it comes. `reasoning` is what the model thinks beside it: the caller of
    the run may see it, and no other step does. `replaces` is that of a `Chunk`: above 0 the text takes the
    place of all that was said before, and so many of its characters lead over to it. `model` is who writes
    it, where that is known."""

    text: str
    tokens: int = 1
    logprobs: tuple[TokenLogprob, ...] | None = None
    reasoning: str = ""
    replaces: int = 0
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a step went: the last item of `StepExecutor.generate`."""

    finish_reason: FinishReason
    usage: Usage
    node: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """A whole step: its text, its outcome, and the seconds it took."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    node: str
    model: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One step to be done by `agent`. `sampling` says only what the step cares about: the agent's
    profile fills the rest, and its role prompt goes before `messages`. The answer goes on from `prefix`,
    which is not said again. It has `seconds` at most, where that is set."""

    name: str
    agent: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    guide: Guide | None
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


class StepExecutor(Protocol):
    """The capability that a pattern runs on."""

    def generate(self, question: GenerationRequest) -> AsyncGenerator[Part | Outcome, None]:
        """`Part`s, then one `Outcome`. Raises an `OrchestraError`, `DeadlineExceeded` when the question's
        `seconds` are over; closing it stops the work."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length 1 for each text: texts that mean the same lie close. Raises `NoNode` when no
        embedding model is to be had, and what else a generation raises."""

    async def tools(self, agent: str) -> tuple[Tool, ...]:
        """What `agent` can use now; nothing where it has no hands. Raises `NodeLost` when it is silent."""

    async def use(self, use: ToolUse) -> ToolResult:
        """What came of it, within the time and size that the agent's settings say. What goes wrong in the
        tool itself is the result's `error`. Raises `InvalidRequest` for a tool that the agent does not have,
        `Overloaded` when too many are in use, `NodeLost` when the agent is silent, `DeadlineExceeded`."""

    async def progress(self, text: str, step: Step | None) -> None:
        """Tell who watches; `step` is set when one has finished or failed."""

    async def event(self, type: str, data: dict[str, Any]) -> None:
        """Tell programs that watch: one of `orchestration.run_events`, or of the pattern's own types."""
