"""What a pattern is made of: steps that are asked, what comes of them, and who does them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from orchestration.messages import (
    ChatMessage,
    Finish,
    GuidedDecoding,
    Priority,
    Sampling,
    Step,
    TextDelta,
    Tool,
    ToolResult,
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


class StepExecutor(Protocol):
    """The capability that a pattern runs on."""

    def generate(
        self, question: GenerationRequest
    ) -> AsyncGenerator[StepAccepted | TextDelta | Finish, None]:
        """`StepAccepted`, `TextDelta`s, then one `Finish`.

        Raises an `OrchestraError`, `DeadlineExceeded` when the question's `seconds` are over; closing it
        stops the work.
        """

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
