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
    seq: int
    at: float
    type: str


class RunStarted(RunEvent):
    """A coordinator begins to perform the run; `attempt` counts from 1. For a job of a model `pattern` is ''
    and `model` is the model's name."""

    type: Literal["started"] = "started"
    pattern: str
    model: str = ""
    attempt: int = 1


class StepStarted(RunEvent):
    """A step is asked of `agent`; `model` is '' where the agent chooses it. It builds on the steps
    `after`."""

    type: Literal["step_started"] = "step_started"
    step: str
    agent: str
    model: str = ""
    after: tuple[str, ...] = ()


class StepEnded(RunEvent):
    """A step is over: well, with its `error`, or stopped (`finish_reason` is `cancelled`). `recorded` says
    that it was done before, by a coordinator that had the run then."""

    type: Literal["step_ended"] = "step_ended"
    step: Step
    recorded: bool = False


class TextDeltaEvent(RunEvent):
    """The next text of the answer: joined, all of a run's are what the caller of a stream gets."""

    type: Literal["text_delta"] = "text_delta"
    text: str


class WarningEvent(RunEvent):
    """What the caller should know of the answer."""

    type: Literal["warning"] = "warning"
    text: str


class RunEnded(RunEvent):
    """The last event."""

    type: Literal["ended"] = "ended"
    finish_reason: FinishReason
    usage: Usage = Usage()
    error: ErrorBody | None = None


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
