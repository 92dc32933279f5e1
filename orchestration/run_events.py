"""The events of a run, for programs that watch it, such as a page that draws it.

Every event is a flat JSON object. `seq` rises within a run. A second `started` says that another coordinator
has taken the run over: it repeats the events of what was done before. An event that is too large is sent with
its long texts shortened, and with its original size in bytes in the field `cut`. Patterns of your own may
send events of other types, which `parse_events` returns as `RunEvent`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from orchestration.messages import ErrorBody, FinishReason, Step, Usage, Wire


class RunEvent(Wire):
    """An event of any type."""

    model_config = ConfigDict(frozen=True, extra="allow")

    run: str
    """Id of the run."""
    seq: int
    """Number of the event; it rises within a run."""
    at: float
    """Unix time in seconds."""
    type: str
    """Type of the event."""

    @property
    def data(self) -> dict[str, Any]:
        """The fields that came with the event, beside those that every event has."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"run", "seq", "at", "type"})


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


class PlanEvent(RunEvent):
    """A plan of tasks (`decompose`, `maestro`, specialists of the coordinator)."""

    type: Literal["plan"] = "plan"
    step: str = ""
    """Name of the step that wrote the plan."""
    reason: str = ""
    """Why this plan, as the model says; with `steps` only."""
    steps: tuple[dict[str, Any], ...] = ()
    """Tasks in stages, each with `specialist`, `task` and `stage`. The tasks of a stage run at once."""
    tasks: tuple[dict[str, Any], ...] = ()
    """Tasks with dependencies, each with `id`, `inputs` (ids of other tasks), `specialist` and `task`."""
    repaired: str = ""
    """What was corrected in the model's plan; '' for nothing."""


class TaskEvent(RunEvent):
    """A task of a plan has a new state."""

    type: Literal["task"] = "task"
    task: int = 0
    """Number of the task in its plan."""
    agent: str = ""
    """Name of the agent that performs it."""
    state: str = ""
    """`waiting`, `working`, `done`, `failed`, `replaced` (by another plan) or `left out`."""
    attempt: int = 0
    """Counts from 1; 0 before the task has begun."""
    seconds: float = 0.0
    """How long it took; for `done` and `failed` only."""
    node: str = ""
    """The node that performed it; for `done` only."""
    error: str = ""
    """The code of the error; for `failed` only."""


class VerdictEvent(RunEvent):
    """The critic's review of the results (`maestro`)."""

    type: Literal["verdict"] = "verdict"
    revision: int = 0
    """0 for the first review."""
    model: str = ""
    """The critic's model."""
    own_family: bool = False
    """Whether the critic's model is of the same family as a model that it reviews."""
    score: float = 0.0
    """1 to 10."""
    scores: dict[str, int] = Field(default_factory=dict)
    """By criterion."""
    must_fix: tuple[dict[str, str], ...] = ()
    """What must be done better: `who` and `what`."""
    verdict: str = ""
    """`pass` or `fail`, as the critic says."""
    passes: bool = False
    """Whether the results pass, by the score too."""
    accepted: bool = True
    """Whether the results of this revision are those that the answer is written from."""


class VoteEvent(RunEvent):
    """A new count of a vote (`ensemble`, `self-consistency`)."""

    type: Literal["vote"] = "vote"
    answer_kind: str = ""
    """How the answers are compared."""
    voters: int = 0
    """Voters in all."""
    votes: int = 0
    """Answers so far."""
    groups: tuple[tuple[int, ...], ...] = ()
    """The voters with the same answer, by number; the leading group first."""
    agreement: float = 0.0
    """The leading group's share of all votes by weight, 0 to 1."""
    lead_probability: float = 0.0
    """The probability that the leader stays so, 0 to 1."""


class RoundEvent(RunEvent):
    """A round of a debate begins."""

    type: Literal["round"] = "round"
    number: int = 0
    """Counts from 1."""
    debaters: tuple[str, ...] = ()
    """The debaters that take part in it."""


class PositionEvent(RunEvent):
    """The answer of one debater at the end of a round."""

    type: Literal["position"] = "position"
    round: int = 0
    """Number of the round, from 1."""
    debater: int = 0
    """Number of the debater, from 1."""
    role: str = ""
    """The debater's standpoint or agent."""
    model: str = ""
    """Its model."""
    node: str = ""
    """The node that answered."""
    answer: str = ""
    """The beginning and the end of a long one."""
    changed: bool = False
    """Whether the answer differs from the one of the round before."""
    unchanged: bool = False
    """Whether the debater gave no new answer in this round."""
    reason: str = ""
    """Why it changed, or why there is no new answer."""
    critique: dict[str, str] = Field(default_factory=dict)
    """What it says of the other answers and of its own: `strengths`, `weaknesses`, `mine`."""


class DebateRoundEvent(RunEvent):
    """A round of a debate is over."""

    type: Literal["debate_round"] = "debate_round"
    round: int = 0
    """Number of the round, from 1."""
    answer_kind: str = ""
    """How the answers are compared."""
    agreement: float = 0.0
    """The leading position's share of the debaters by weight, 0 to 1."""
    changes: int = 0
    """Debaters whose answer changed."""
    groups: tuple[tuple[int, ...], ...] = ()
    """The debaters with the same position, by number; the leading group first."""
    over: str = ""
    """Why the debate ends here; '' where it goes on."""


class PatternChosen(RunEvent):
    """The pattern and the model that `auto` chose."""

    type: Literal["choice"] = "choice"
    question: str = ""
    """The kind of the question."""
    confidence: float = 0.0
    """The probability of that kind, 0 to 1."""
    difficulty: str = ""
    """How difficult the question seems."""
    tokens: int = 0
    """Estimated length of the question."""
    pattern: str = ""
    """Name of the pattern."""
    profile: str = ""
    """The sampling parameters, by name."""
    model: str = ""
    """'' where the pattern chooses it."""
    reason: str = ""
    """Why it was chosen."""


class GroundingEvent(RunEvent):
    """An answer was compared with its sources."""

    type: Literal["grounding"] = "grounding"
    step: str = ""
    """Name of the step that wrote the answer."""
    claims: int = 0
    """Sentences that were compared."""
    unsupported: int = 0
    """Those that no source supports."""
    wrong: tuple[int, ...] = ()
    """Numbers that the answer cites and no source has."""


class CodeEvent(RunEvent):
    """A program in an answer was checked."""

    type: Literal["code"] = "code"
    step: str = ""
    """Name of the step that wrote the answer."""
    model: str = ""
    """Its model."""
    parses: bool = False
    """Whether it is valid Python."""
    problem: str = ""
    """Why it does not parse."""
    examples: int = 0
    """Examples of the request that it was run with; 0 without a sandbox."""
    passed: int = 0
    """Examples whose result is right."""
    failures: tuple[str, ...] = ()
    """One line for each example that failed."""
    repaired: bool = False
    """Whether the model wrote it again after a first check."""


class ArithmeticEvent(RunEvent):
    """Wrong sums in an answer were found."""

    type: Literal["arithmetic"] = "arithmetic"
    step: str = ""
    """Name of the step that wrote the answer."""
    corrections: tuple[dict[str, str], ...] = ()
    """Each with `sum`, `wrong` and `right`."""


EVENT_TYPES: dict[str, type[RunEvent]] = {
    event.model_fields["type"].default: event for event in RunEvent.__subclasses__()
}
"""The types of Orchestra's own events by name."""


def parse_events(data: bytes) -> list[RunEvent]:
    """The events of one message on `events.run.<id>`, one JSON object a line. An event that does not fit its
    type is a plain `RunEvent`. Raises pydantic's `ValidationError` for a line that is no event."""
    return [_parse(line) for line in data.splitlines()]


def _parse(line: bytes) -> RunEvent:
    event = RunEvent.model_validate_json(line)
    try:
        return EVENT_TYPES.get(event.type, RunEvent).model_validate(event.model_dump())
    except ValidationError:
        return event
