"""The interface between patterns and the processes that perform their steps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from orchestration.messages import Finish, Step, TextDelta, Tool, ToolResult
from orchestration.patterns.base import GenerationRequest, StepAccepted, ToolUse
from orchestration.patterns.step_request import StepEvent, StepRequest


class StepExecutor(Protocol):
    """Makes model calls and embeddings, has agents perform steps, and publishes progress and events."""

    def generate(
        self, question: GenerationRequest
    ) -> AsyncGenerator[StepAccepted | TextDelta | Finish, None]:
        """`StepAccepted`, `TextDelta`s, then one `Finish`.

        Raises an `OrchestraError`, `DeadlineExceeded` when the question's `seconds` are over; closing it
        stops the work.
        """

    def perform(self, request: StepRequest) -> AsyncGenerator[StepEvent, None]:
        """Have an agent with tools perform a step. The last event is `StepDone`; closing it stops the work.

        Raises `NoResponders` when no agent of that name has tools, `NodeLost` when it was lost, and the
        error of the step.
        """

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length 1 for each text; texts with a similar meaning have close vectors. Raises
        `NoNode` without an embedding model, and the errors of a generation."""

    async def progress(self, text: str, step: Step | None) -> None:
        """Publish a line for people; `step` is the step that has finished or failed, if any."""

    async def event(self, type: str, data: dict[str, Any]) -> None:
        """Publish an event for programs: one of `orchestration.run_events`, or of the pattern's own types."""


class LocalTools(Protocol):
    """The tools of an agent in this process."""

    async def tools(self, agent: str) -> tuple[Tool, ...]:
        """What `agent` can use now."""

    async def use(self, use: ToolUse) -> ToolResult:
        """What the tool gave, within the time and size that the agent's settings say. What goes wrong in the
        tool itself is the result's `error`. Raises `InvalidRequest` for a tool that the agent does not have,
        `Overloaded` when too many are in use, `DeadlineExceeded`."""
