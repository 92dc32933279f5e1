"""A step that an agent does where its tools are: what is sent to it once, and what comes back meanwhile."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestration.messages import ChatMessage as ChatMessage
from orchestration.messages import Finish, GuidedDecoding, Run, Sampling, TextDelta, ToolResult, Wire
from orchestration.patterns.step_cache import StepRecord


class StepRequest(Wire):
    """Do one step of `run`, whose `budget` here is what this step may use in all.

    The step is one of three `kind`s: `specialist` looks up sources, answers `messages` and checks the answer;
    `answer` does the same for the caller of the run, to whom the text is streamed; `tool` uses `tool` with
    `arguments`, and nothing else.

    The agent reports each generation and each use of a tool as a step of its own, whose name begins with
    `name`. `records` are those that were finished before, by a coordinator that was lost: they are not done
    again. `models` are the models that take part in the run, whose smallest context sets the limits.
    """

    kind: Literal["specialist", "answer", "tool"]
    run: Run
    name: str
    agent: str
    messages: tuple[ChatMessage, ...] = ()
    sampling: Sampling | None = None
    guide: GuidedDecoding | None = None
    model: str | None = None
    query: str = ""
    """The text that is looked up; '' for the last question of `messages`."""
    first_source: int = 1
    """The number of the first source that is found."""
    tool: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    models: tuple[str, ...] = ()
    prefix: str = ""
    """What the caller has of the answer already. It is not said again."""
    prefix_tokens: int = Field(default=0, ge=0)
    records: tuple[StepRecord, ...] = ()


class StepAlive(Wire):
    """The agent works on the step, and has nothing else to say."""

    type: Literal["alive"] = "alive"


class StepRunEvent(Wire):
    """An event for programs that watch the run: see `orchestration.run_events`."""

    type: Literal["run_event"] = "run_event"
    event: str
    data: dict[str, Any]


class StepProgress(Wire):
    """What the agent does, for people. `finished` names the part of the step that has just ended."""

    type: Literal["progress"] = "progress"
    text: str
    finished: str = ""


class StepRecorded(Wire):
    """A part of the step is finished, and is to be recorded before anything that follows from it."""

    type: Literal["recorded"] = "recorded"
    record: StepRecord


class StepWritten(Wire):
    """What the model wrote since the last of these. It counts where the step is stopped."""

    type: Literal["written"] = "written"
    text: str
    tokens: int
    model: str = ""


class StepText(Wire):
    """The next text of an answer that is streamed to the caller."""

    type: Literal["text"] = "text"
    delta: TextDelta


class StepDone(Wire):
    """The step is done: its answer, or what the tool gave, and what it adds to the report of the run."""

    type: Literal["done"] = "done"
    text: str = ""
    finish: Finish = Finish(reason="stop")
    seconds: float = 0.0
    result: ToolResult | None = None
    report: dict[str, Any] = Field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    """Parts that the budget did not allow."""
    shortened: tuple[str, ...] = ()
    """Parts that may have had to stop early."""


StepEvent = StepAlive | StepRunEvent | StepProgress | StepRecorded | StepWritten | StepText | StepDone


class StepEvents(Wire):
    """One message of the answer: the events since the last. `seq` counts up from 0 without a gap."""

    seq: int
    events: tuple[Annotated[StepEvent, Field(discriminator="type")], ...]
