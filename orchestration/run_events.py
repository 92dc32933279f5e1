"""What happens in a run, for programs that watch it, such as a page that draws it.

Every event is a flat JSON object with `run`, `seq`, `at` and `type`; `seq` rises within a run, and `started`
tells the story from its beginning: where it comes again, another coordinator has taken the run up, and
tells over what was done before. Patterns add kinds of their own (`plan`, `round`, `position`, `vote`,
`verdict`, `choice`, …), which arrive as a `RunEvent`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from orchestration.messages import ErrorBody, FinishReason, Step, Usage, Wire


class RunEvent(Wire):
    """Any event. `at` is Unix time in seconds."""

    model_config = ConfigDict(frozen=True, extra="allow")

    run: str
    """Id of the run."""
    seq: int
    """Number of the event; it rises within a run."""
    at: float
    """Unix time in seconds."""
    type: str
    """Type of the event."""


class RunStarted(RunEvent):
    """A coordinator begins to perform the run."""

    type: Literal["started"] = "started"
    pattern: str
    """Name of the pattern; empty for a job of a model."""
    model: str = ""
    """Name of the model, for a job of a model; otherwise empty."""
    attempt: int = 1
    """Number of the attempt, from 1. A higher one says that another coordinator has taken the run over."""


class StepStarted(RunEvent):
    """A step was sent to an agent."""

    type: Literal["step_started"] = "step_started"
    step: str
    """Name of the step, unique in the run."""
    agent: str
    """Name of the agent."""
    model: str = ""
    """Name of the model; empty if the agent chooses it."""
    after: tuple[str, ...] = ()
    """Names of the steps whose answers it uses."""


class StepEnded(RunEvent):
    """A step has ended: with an answer, with an error, or cancelled."""

    type: Literal["step_ended"] = "step_ended"
    step: Step
    """The result of the step."""
    recorded: bool = False
    """Whether an earlier coordinator of the run had already finished the step."""


class TextDeltaEvent(RunEvent):
    """The next piece of the answer."""

    type: Literal["text_delta"] = "text_delta"
    text: str
    """The text. All pieces joined are the answer."""


class WarningEvent(RunEvent):
    """A limitation of the answer, such as a step that was left out."""

    type: Literal["warning"] = "warning"
    text: str
    """The warning, for people."""


class RunEnded(RunEvent):
    """The run has ended. This is its last event."""

    type: Literal["ended"] = "ended"
    finish_reason: FinishReason
    """Why the answer ended."""
    usage: Usage = Usage()
    """Tokens of all steps together."""
    error: ErrorBody | None = None
    """The error of a failed run; else null."""


_TYPES: dict[str, type[RunEvent]] = {
    "started": RunStarted,
    "step_started": StepStarted,
    "step_ended": StepEnded,
    "text_delta": TextDeltaEvent,
    "warning": WarningEvent,
    "ended": RunEnded,
}


def parse_events(data: bytes) -> list[RunEvent]:
    """The events of one message on `events.run.<id>`, one JSON object a line. Raises pydantic's
    `ValidationError`."""
    events = (RunEvent.model_validate_json(line) for line in data.splitlines())
    return [_TYPES.get(event.type, RunEvent).model_validate(event.model_dump()) for event in events]
