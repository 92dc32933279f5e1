"""The central log: pages of events, one event with its body, runs that have ended, and tokens used."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from pydantic import Field, field_validator
from pydantic_core import to_json

from actors.admin.requests import MAX_PAGE, NotThere
from actors.bus.bus import Bus
from actors.gateway.operation import CallContext, Reply
from actors.logs.filter import LogFilter
from actors.logs.reader import LogReader, StoredEvent
from orchestration.log_events import LogKind, LogLevel
from orchestration.messages import Wire

MAX_COUNTED = 20_000
"""Maximum events that one answer on usage is computed from."""
COUNT_S = 5.0
"""Maximum time for it."""
RUN_ENDS = frozenset({"run.ended", "run.failed", "run.cancelled"})
"""The events that end a run."""
CACHED = ("hit", "shared")


class ListEvents(Wire):
    """A page of the log, the newest events first. Empty fields match any event."""

    level: LogLevel = LogLevel.DEBUG
    """Minimum level."""
    kinds: tuple[LogKind, ...] = ()
    """Kinds of events, such as `request`; in a query separated by commas."""
    run: str = Field(default="", max_length=128)
    """Id of the run, job or request."""
    trace: str = Field(default="", max_length=32)
    """The 32 hexadecimal digits of the trace."""
    caller: str = Field(default="", max_length=64)
    """Name of the caller."""
    model: str = Field(default="", max_length=256)
    """Name of the model."""
    node: str = Field(default="", max_length=128)
    """Id of the node."""
    process: str = Field(default="", max_length=128)
    """Id of the process that recorded it."""
    since: float = Field(default=0, ge=0)
    """Unix time in seconds; 0: the beginning."""
    until: float = Field(default=0, ge=0)
    """Unix time in seconds; 0: now."""
    limit: int = Field(default=100, ge=1, le=MAX_PAGE)
    """Maximum events on the page, 1 to 1000. Default: 100."""
    before: int = Field(default=0, ge=0, le=2**53)
    """`next` of the page before; 0: the first page."""

    @field_validator("kinds", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    def filter(self) -> LogFilter:
        """The same as the reader of the log takes it."""
        return LogFilter(**self.model_dump(exclude={"limit", "before"}))


class EventNumber(Wire):
    """The place of an event in the log."""

    number: int = Field(ge=1, le=2**53)
    """Number of the event, as in the list."""


class EndedRuns(Wire):
    """A page of runs that have ended, the last one first."""

    caller: str = Field(default="", max_length=64)
    """Only runs of this caller."""
    model: str = Field(default="", max_length=256)
    """Only runs whose answer is of this model."""
    pattern: str = Field(default="", max_length=64)
    """Only runs of this pattern."""
    since: float = Field(default=0, ge=0)
    """Only runs that ended at this Unix time or later, in seconds; 0: any."""
    limit: int = Field(default=100, ge=1, le=MAX_PAGE)
    """Maximum runs on the page, 1 to 1000. Default: 100."""
    before: int = Field(default=0, ge=0, le=2**53)
    """`next` of the page before; 0: the first page."""


class ShowUsage(Wire):
    """Tokens used by caller and model."""

    within_s: float = Field(default=3600, gt=0, le=1e8)
    """Only requests that have ended within this time, in seconds. Default: an hour."""
    caller: str = Field(default="", max_length=64)
    """Only this caller."""
    model: str = Field(default="", max_length=256)
    """Only this model."""


class LogsAdmin:
    """The handlers of the operations on the log."""

    def __init__(self, bus: Bus) -> None:
        self.reader = LogReader(bus)

    async def list_events(self, request: ListEvents, call: CallContext) -> Reply:
        """The events without their bodies."""
        page = await self.reader.page(request.filter(), limit=request.limit, before=request.before or None)
        rows = [_summary(stored) for stored in page.events]
        return Reply(body=to_json({"object": "list", "data": rows, "next": page.before or 0}))

    async def show(self, request: EventNumber, call: CallContext) -> Reply:
        """Raises `NotThere` for an event that the log has not, or no longer."""
        stored = await self.reader.one(request.number)
        if stored is None:
            raise NotThere(f"no event {request.number} in the log", param="number")
        return Reply(body=to_json(_summary(stored) | {"data": stored.event.data}))

    async def ended_runs(self, request: EndedRuns, call: CallContext) -> Reply:
        """Runs and jobs whose end the log has, with the facts of their end. A page may have fewer than
        `limit`, as the log has other events of runs too."""
        wanted = LogFilter(
            kinds=(LogKind.RUN,), caller=request.caller, model=request.model, since=request.since
        )
        page = await self.reader.page(wanted, limit=request.limit, before=request.before or None)
        rows = [
            _summary(stored) | {"data": stored.event.data}
            for stored in page.events
            if stored.event.name in RUN_ENDS and request.pattern in ("", stored.event.pattern)
        ]
        return Reply(body=to_json({"object": "list", "data": rows, "next": page.before or 0}))

    async def usage(self, request: ShowUsage, call: CallContext) -> Reply:
        """Sums of the requests that the log has. It is not `complete` where more have ended than are counted:
        then the sums are from `since` on. A response from the cache uses no tokens."""
        since = time.time() - request.within_s
        wanted = LogFilter(kinds=(LogKind.REQUEST,), caller=request.caller, model=request.model, since=since)
        sums: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
        counted, before, gives_up_at = 0, None, time.monotonic() + COUNT_S
        oldest = time.time()
        while counted < MAX_COUNTED and time.monotonic() < gives_up_at:
            page = await self.reader.page(wanted, limit=MAX_PAGE, before=before)
            for stored in page.events:
                _add(sums, stored)
                oldest = min(oldest, stored.event.at)
            counted += len(page.events)
            before = page.before
            if before is None:
                break
        rows = [
            {"caller": caller, "model": model, **values} for (caller, model), values in sorted(sums.items())
        ]
        complete = before is None
        body = {"data": rows, "requests": counted, "complete": complete}
        return Reply(body=to_json(body | {"since": since if complete else oldest}))


def _add(sums: dict[tuple[str, str], dict[str, int]], stored: StoredEvent) -> None:
    event = stored.event
    if event.name != "request.ended" or "output_tokens" not in event.data:
        return
    row = sums[event.caller, event.model]
    row["requests"] += 1
    row["failed"] += int(event.data.get("status", 200) >= 400)
    from_cache = event.data.get("cache") in CACHED
    row["from_cache"] += int(from_cache)
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        row[name] += 0 if from_cache else int(event.data.get(name, 0))


def _summary(stored: StoredEvent) -> dict[str, Any]:
    return {"number": stored.sequence} | stored.event.model_dump(mode="json", exclude={"data"})
