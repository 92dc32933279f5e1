"""The log of events of this process: roles record events, and sinks such as the publisher take them.

It is one per process, as Python's logging is. Without a sink an event is not even made.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from actors.telemetry.identity import ProcessIdentity
from orchestration.log_events import LogEvent, LogLevel

RECORDED = {"recorded": True}
"""`extra` of a line of Python's logging that tells an event, and so becomes none itself."""
Sink = Callable[[LogEvent], None]
"""Takes one event. It returns at once and raises nothing."""


class EventLog:
    """Passes the events of this process to its sinks."""

    def __init__(self) -> None:
        self.identity = ProcessIdentity(role="", id="", host="", pid=0)
        self.content = False
        """Whether events may contain texts of models, upstreams and exceptions, which may quote prompts."""
        self._sinks: list[Sink] = []
        self._numbers = itertools.count(1)

    @property
    def enabled(self) -> bool:
        """Whether anyone takes events. Callers that would compute something for an event ask first."""
        return bool(self._sinks)

    def add_sink(self, sink: Sink) -> None:
        self._sinks.append(sink)

    def remove_sink(self, sink: Sink) -> None:
        if sink in self._sinks:
            self._sinks.remove(sink)

    def record(
        self,
        name: str,
        *,
        ordinal: int | None = None,
        event_id: str = "",
        level: LogLevel = LogLevel.INFO,
        **fields: Any,
    ) -> None:
        """Record the event `name` now. `fields` are those of `LogEvent`.

        With `ordinal` the event's id is made of run, step, name and ordinal, so that a repetition of the same
        fact, by this or another process, has the same id. `event_id` is such an id, for other facts that
        several processes may tell. Without either the id is new.
        """
        if self._sinks:
            self.pass_on(self._made(name, ordinal, event_id, level, fields))

    def pass_on(self, event: LogEvent) -> None:
        """Give an event to the sinks."""
        for sink in self._sinks:
            sink(event)

    def make(
        self,
        name: str,
        *,
        ordinal: int | None = None,
        event_id: str = "",
        level: LogLevel = LogLevel.INFO,
        **fields: Any,
    ) -> LogEvent:
        """The event that `record` would pass on."""
        return self._made(name, ordinal, event_id, level, fields)

    def _made(
        self, name: str, ordinal: int | None, event_id: str, level: LogLevel, fields: dict[str, Any]
    ) -> LogEvent:
        """`fields` becomes the event's own."""
        identity = self.identity
        if not event_id and ordinal is None:
            event_id = f"{identity.id}/{round(identity.started_at * 1000):x}/{next(self._numbers)}"
        elif not event_id:
            event_id = f"{fields.get('run', '')}/{fields.get('step', '')}/{name}/{ordinal}"
        fields["id"], fields["at"], fields["name"], fields["level"] = event_id, time.time(), name, level
        fields["process"], fields["role"], fields["host"] = identity.id, identity.role, identity.host
        return LogEvent.model_validate(fields)


event_log = EventLog()
