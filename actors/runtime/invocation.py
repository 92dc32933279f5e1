"""One message on its way through an actor, and where the answer goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from actors.runtime.envelope import Envelope
from actors.telemetry.tracing import Scope
from orchestration.errors import Cancelled, OrchestraError

DEADLINE_MARGIN_S = 0.002
"""A timer may fire this much before the deadline."""


class ResultSink(Protocol):
    """Receives the answer. Exactly one of `done` and `failed` is called, once."""

    async def item(self, value: Any) -> None:
        """One value of a stream; it may wait, which slows the handler down (back-pressure)."""

    async def done(self, value: Any) -> None:
        """The result, or None at the end of a stream."""

    async def failed(self, error: OrchestraError) -> None: ...


class NullSink:
    """The sink of a message that needs no answer."""

    async def item(self, value: Any) -> None: ...

    async def done(self, value: Any) -> None: ...

    async def failed(self, error: OrchestraError) -> None: ...


NULL_SINK = NullSink()


@dataclass(slots=True, eq=False)
class Invocation:
    """A message, its envelope and its sink. `cancel` takes it back, whether it waits or runs."""

    message: Any
    envelope: Envelope
    sink: ResultSink
    """Receives the answer."""
    task: asyncio.Task[None] | None = None
    """The running handler; None while the message waits."""
    cancelled: bool = False
    stop_error: OrchestraError | None = None
    """Set when the actor stops before the handler has finished: the error to report."""
    on_cancel: Callable[[Invocation], None] | None = None
    """Set while the message waits in a mailbox."""
    timer: asyncio.TimerHandle | None = None
    """Ends the wait in the mailbox at the deadline."""
    scope: Scope | None = None
    """When the work on the message is over, for its spans; None without tracing."""

    def open_scope(self) -> Scope:
        """The scope of the handler's spans: they end by the deadline, which the caller's timer may pass
        first."""
        deadline = self.envelope.deadline
        self.scope = Scope(deadline - DEADLINE_MARGIN_S if deadline else 0.0)
        return self.scope

    def cancel(self, at_ns: int = 0) -> None:
        """Take the message back. `at_ns` is when its caller did so, as a Unix time; 0: now."""
        if self.scope is not None:
            self.scope.close(at_ns)
        if self.cancelled:
            return
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()
        elif self.on_cancel is not None:
            self.on_cancel(self)

    def leave_mailbox(self) -> None:
        """Stop the timer of the wait in the mailbox."""
        self.on_cancel = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def cancel_error(self, actor: str) -> OrchestraError | None:
        """The error of a handler of `actor` that was stopped; None where nothing stopped it."""
        if self.cancelled:
            return Cancelled(f"{actor} was told to stop")
        return self.stop_error
