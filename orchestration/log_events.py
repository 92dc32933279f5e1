"""The events of the central log: what happened in the cluster, one record per fact."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from orchestration.wire import Wire


class LogLevel(StrEnum):
    """How serious an event is, in rising order."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogKind(StrEnum):
    """What an event is about; its name is `<kind>.<what happened>`."""

    REQUEST = "request"
    """An HTTP or NATS request ended at a gateway."""
    RUN = "run"
    """A run or job started, was resumed by another coordinator, or ended."""
    STEP = "step"
    """A step of a run ended."""
    GENERATION = "generation"
    """A model call ended, moved to another node, or was hedged."""
    NODE = "node"
    """A node joined, drained, left or was lost."""
    BREAKER = "breaker"
    """A circuit breaker opened, half-opened or closed."""
    ADMIN = "admin"
    """An operator changed something: the audit."""
    ERROR = "error"
    """An unexpected exception."""
    RECORD = "record"
    """A record of Python's logging from WARNING on."""
    NATS = "nats"
    """An advisory of the NATS server, such as a lost quorum."""
    GAP = "log"
    """Events were lost: how many and when (`log.gap`)."""


class LogEvent(Wire):
    """One event. Empty strings mean that the event does not belong to a run, step, trace and so on."""

    id: str
    """Unique for the fact, not for the message: two messages with one id tell the same fact. Made of run,
    step, name and ordinal where there is a run, else of the process and a number."""
    at: float
    """Unix time in seconds."""
    name: str
    """For example `run.ended`."""
    level: LogLevel = LogLevel.INFO
    process: str = ""
    """Id of the process that wrote it."""
    role: str = ""
    host: str = ""
    run: str = ""
    """Id of the run, job or request."""
    step: str = ""
    trace: str = ""
    """The 32 hexadecimal digits of the trace."""
    span: str = ""
    """The 16 hexadecimal digits of the span; '' where the trace is not recorded."""
    caller: str = ""
    model: str = ""
    node: str = ""
    pattern: str = ""
    message: str = ""
    """One sentence for people."""
    data: dict[str, Any] = Field(default_factory=dict)
    """Further facts: numbers with their unit in the name, such as `duration_s`, or short strings."""

    @property
    def kind(self) -> LogKind:
        """The part of the name before the dot."""
        return LogKind(self.name.partition(".")[0])
