"""The audit: one event `admin.changed` for each change that an operator makes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from pydantic_core import to_json

from actors.admin.requests import ChangeRequest
from actors.bus.bus import Bus
from actors.bus.jetstream import MESSAGE_ID_HEADER, enqueue
from actors.gateway.operation import CallContext, Handler, Reply
from actors.logs.event_form import encoded_event, subject_of
from actors.runtime.failures import UNEXPECTED_ERRORS
from actors.telemetry.event_log import event_log
from actors.telemetry.tracing import trace_id
from orchestration.errors import OrchestraError, Unavailable
from orchestration.log_events import LogEvent, LogLevel

log = logging.getLogger(__name__)

EVENT = "admin.changed"
MAX_BYTES = 64 * 1024
"""Maximum size of a record."""
TRIES = 3
PAUSE_S = 0.2
CANCELLED = "the call was cancelled before its end"
"""What is recorded of a change whose deadline has passed, or whose gateway has stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What a change did: `before` and `after` are the state of its `target`. `body` is the answer.

    A repetition that finds everything as asked for is not `changed`, and no record is made of it.
    """

    target: str
    before: Any
    after: Any
    body: dict[str, Any]
    status: int = 200
    changed: bool = True
    about: dict[str, str] = field(default_factory=dict)
    """The fields `model`, `node` and `run` of the record."""


Change = Callable[[Any, CallContext], Awaitable[Changed]]


class RecordNotStored(Unavailable):
    """A change was made, and its audit record could not be stored."""

    code = "record_not_stored"
    retryable = False


class Audit:
    """Writes the records to the stream `LOGS`, and answers once the stream has them. They also go to the
    other sinks of this process' events; the stream stores an event once."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    def handler(self, action: str, change: Change) -> Handler:
        """The handler of a change, which records it. A change that failed on the way, or was cancelled, is
        recorded as failed, since it may have had an effect; one that was refused is not."""

        async def handle(request: ChangeRequest, call: CallContext) -> Reply:
            try:
                made = await change(request, call)
            except OrchestraError as error:
                if error.status >= 500:
                    await self.store(_failed_event(action, request, call, error.message))
                raise
            except (asyncio.CancelledError, *UNEXPECTED_ERRORS) as error:
                problem = CANCELLED if isinstance(error, asyncio.CancelledError) else type(error).__name__
                with suppress(RecordNotStored):  # it is logged
                    await self.store(_failed_event(action, request, call, problem))
                raise
            if made.changed:
                await self.store(_made_event(action, request, call, made))
            return Reply(body=to_json(made.body), status=made.status)

        return handle

    async def record(self, action: str, made: Changed, call: CallContext, reason: str) -> None:
        """Record a change of an operator that is none of the table. Raises `RecordNotStored`."""
        await self.store(_made_event(action, ChangeRequest(reason=reason), call, made))

    async def store(self, event: LogEvent) -> None:
        """Store a record, also when this call is cancelled meanwhile. Raises `RecordNotStored` after
        `TRIES`."""
        event_log.pass_on(event)
        try:
            await self._store(event)
        except asyncio.CancelledError:  # the stream keeps one that is sent twice once
            with suppress(RecordNotStored):
                await self._store(event)
            raise

    async def _store(self, event: LogEvent) -> None:
        body, headers = encoded_event(event, MAX_BYTES), {MESSAGE_ID_HEADER: event.id}
        for attempt in range(1, TRIES + 1):
            try:
                await enqueue(self.bus, subject_of(event), body, headers)
                return
            except OrchestraError as error:
                log.error("audit record not stored, attempt %d: %s: %s", attempt, event.message, error)
                if attempt == TRIES:
                    raise RecordNotStored(
                        f"the change was made, and its audit record could not be stored: {error.message}"
                    ) from error
            await asyncio.sleep(PAUSE_S)


async def record_direct(
    bus: Bus, action: str, who: str, made: Changed, request: ChangeRequest | None = None
) -> None:
    """Record a change that a command has made without a gateway. Raises `RecordNotStored`."""
    call = CallContext(caller=who, header=lambda name: "")
    event = _made_event(action, request or ChangeRequest(), call, made)
    await Audit(bus).store(event.model_copy(update={"id": f"command/{token_hex(8)}"}))


def _failed_event(action: str, request: ChangeRequest, call: CallContext, problem: str) -> LogEvent:
    asked = request.model_dump(mode="json", exclude={"reason"}, exclude_defaults=True)
    return _event(action, request, call, {"asked": asked, "error": problem}, LogLevel.ERROR)


def _made_event(action: str, request: ChangeRequest, call: CallContext, made: Changed) -> LogEvent:
    facts = {"target": made.target, "before": made.before, "after": made.after}
    return _event(action, request, call, facts, LogLevel.INFO, made.about)


def _event(
    action: str,
    request: ChangeRequest,
    call: CallContext,
    facts: dict[str, Any],
    level: LogLevel,
    about: dict[str, Any] | None = None,
) -> LogEvent:
    who = call.operator
    outcome = f"failed: {facts['error']}" if "error" in facts else f"of {facts['target']}"
    why = f" ({request.reason})" if request.reason else ""
    return event_log.make(
        EVENT,
        level=level,
        caller=who,
        trace=trace_id(call.trace),
        message=f"{who}: {action} {outcome}{why}",
        data={"action": action, "reason": request.reason} | facts,
        **(about or {}),
    )
