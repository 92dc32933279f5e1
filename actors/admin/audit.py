"""The audit: one event `admin.changed` for each change that an operator makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from actors.admin.requests import ChangeRequest
from actors.gateway.operation import CallContext, Handler, Reply
from actors.telemetry.event_log import event_log
from actors.telemetry.tracing import trace_id
from orchestration.errors import OrchestraError
from orchestration.log_events import LogLevel

EVENT = "admin.changed"
ON_NATS = "nats"
"""Who made a change over NATS without the header `Orchestra-Caller`."""


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


def audited(action: str, change: Change) -> Handler:
    """The handler of a change, which records it. A change that failed on the way is recorded as failed, since
    it may have had an effect; one that was refused is not."""

    async def handle(request: ChangeRequest, call: CallContext) -> Reply:
        try:
            made = await change(request, call)
        except OrchestraError as error:
            if error.status >= 500:
                asked = request.model_dump(mode="json", exclude={"reason"}, exclude_defaults=True)
                _record(action, request, call, {"asked": asked, "error": error.message}, LogLevel.ERROR)
            raise
        if made.changed:
            facts = {"target": made.target, "before": made.before, "after": made.after}
            _record(action, request, call, facts, LogLevel.INFO, made.about)
        return Reply(body=to_json(made.body), status=made.status)

    return handle


def _record(
    action: str,
    request: ChangeRequest,
    call: CallContext,
    facts: dict[str, Any],
    level: LogLevel,
    about: dict[str, Any] | None = None,
) -> None:
    who = call.caller or ON_NATS
    outcome = f"failed: {facts['error']}" if "error" in facts else f"of {facts['target']}"
    why = f" ({request.reason})" if request.reason else ""
    event_log.record(
        EVENT,
        level=level,
        caller=who,
        trace=trace_id(call.trace),
        message=f"{who}: {action} {outcome}{why}",
        data={"action": action, "reason": request.reason} | facts,
        **(about or {}),
    )
