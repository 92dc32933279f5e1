"""Hosts one actor: its mailbox, its running handlers, its restarts.

A message starts a task at once while `concurrency` allows it; other messages wait in a bounded mailbox.
An idle actor is a few small objects, so thousands fit in a process.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Protocol

from actors.runtime.envelope import Envelope, current_envelope
from actors.runtime.handler_run import HandlerRun, count_message, report
from actors.runtime.handlers import HandlerSpec, handlers
from actors.runtime.invocation import NULL_SINK, Invocation, ResultSink
from actors.telemetry.telemetry import ACTOR_RESTARTS, ACTORS_FAILED, MAILBOX_REFUSED
from orchestration.errors import (
    Cancelled,
    DeadlineExceeded,
    MailboxFull,
    OrchestraError,
    ShuttingDown,
    Unavailable,
)
from orchestration.restarts import RestartPolicy, Restarts

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
"""Maximum time for an actor to stop; then the host goes on without it."""

State = Literal["starting", "running", "restarting", "draining", "stopped", "failed"]


class Hosted(Protocol):
    """What the host needs of an actor; see `Actor`."""

    mailbox_size: ClassVar[int]
    concurrency: ClassVar[int]
    restart: ClassVar[RestartPolicy]

    async def started(self) -> None: ...

    async def stopped(self) -> None: ...


class ActorHost:
    """Runs one actor. `factory` makes the instance, and a new one after each crash.

    `on_failure` is called when the actor crashed too often and stays down.
    """

    def __init__(
        self,
        name: str,
        kind: type[Hosted],
        factory: Callable[[], Hosted],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.state: State = "starting"
        self.actor: Hosted | None = None
        self.last_error: BaseException | None = None
        self._on_failure = on_failure
        self._factory = factory
        self._handlers = handlers(kind)
        self._mailbox: OrderedDict[Invocation, None] = OrderedDict()
        self._running: dict[asyncio.Task[None], Invocation | None] = {}
        """Tasks of handlers, and those that answer for a message without a handler (None)."""
        self._restarts = Restarts(kind.restart)
        self._restarting: asyncio.Task[None] | None = None
        self._idle: asyncio.Event | None = None
        """Made for a drain, and set when no message waits or runs any more."""

    @property
    def waiting(self) -> int:
        return len(self._mailbox)

    @property
    def running(self) -> int:
        return len(self._running)

    def spec(self, message: Any) -> HandlerSpec:
        """The handler of a message. Raises TypeError when there is none."""
        spec = self._handlers.get(type(message))
        if spec is None:
            raise TypeError(f"{self.name} has no handler for {type(message).__name__}")
        return spec

    async def start(self) -> None:
        """Start the actor. Raises what its first start raises."""
        try:
            await self._renew()
        except BaseException:
            self.state = "stopped"
            await self._abandon(ShuttingDown(f"{self.name} did not start"))
            raise
        self.state = "running"
        self._run_waiting()

    def admit(self, invocation: Invocation, *, own: bool = False) -> None:
        """Take a message. Raises `MailboxFull`, `ShuttingDown` or `Unavailable`, and TypeError for a message
        without a handler. While the actor drains it still takes its `own` messages, which continue the work
        on admitted ones."""
        spec = self.spec(invocation.message)
        if self.state == "stopped" or (self.state == "draining" and not own):
            raise ShuttingDown(f"{self.name} is draining", retry_after_s=1)
        if self.state == "failed":
            raise Unavailable(f"{self.name} failed after repeated crashes; the last: {self.last_error!r}")
        if self._can_run():
            self._begin(invocation, spec)
        elif len(self._mailbox) < self.kind.mailbox_size:
            self._wait(invocation)
        else:
            MAILBOX_REFUSED.labels(self.kind.__name__).inc()
            raise MailboxFull(
                f"{self.name} has {len(self._mailbox)} messages waiting, its mailbox_size", retry_after_s=1
            )

    async def drain(self, limit_s: float) -> bool:
        """Refuse new messages, let admitted ones finish for `limit_s` seconds, cancel the rest, and stop.

        Returns whether nothing had to be cancelled.
        """
        if self.state in ("stopped", "failed"):
            return True
        self.state = "draining"
        if self._restarting is not None and not self._restarting.done():  # no instance can handle messages
            self._restarting.cancel()
            await asyncio.wait({self._restarting}, timeout=STOP_TIMEOUT_S)
            await self._abandon(ShuttingDown(f"{self.name} was stopped after a crash"))
            self.state = "stopped"
            return False
        clean = await self._until_idle(limit_s)
        if not clean:
            log.warning("%s: %d messages unfinished after %.1f s", self.name, self.running, limit_s)
            await self._abandon(ShuttingDown(f"{self.name} was stopped before it finished"))
        self.state = "stopped"
        await self._stop_actor()
        return clean

    def crashed(self, actor: Hosted, error: BaseException) -> None:
        """Replace `actor`, one of whose own loops ended with `error`, by a new instance."""
        log.error("%s crashed", self.name, exc_info=error)
        self.last_error = error
        if actor is self.actor and self.state == "running":
            self.state = "restarting"
            self._restarting = asyncio.get_running_loop().create_task(self._restart())

    def _can_run(self) -> bool:
        able = self.state == "running" or self.state == "draining"
        return able and len(self._running) < self.kind.concurrency

    def _begin(self, invocation: Invocation, spec: HandlerSpec) -> None:
        run = HandlerRun(self.name, self.actor, spec, invocation)
        invocation.task = self._create_task(run.run(), invocation)

    def _create_task(self, work: Any, invocation: Invocation | None) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._running[task] = invocation
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        invocation = self._running.pop(task)
        if task.cancelled():
            if invocation is not None:  # cancelled before its first step, so it could not report that
                reason = invocation.cancel_error(self.name) or Cancelled(f"{self.name} was told to stop")
                self._report(invocation, reason)
        elif (error := task.exception()) is not None:
            log.error("%s: an answer could not be given", self.name, exc_info=error)
        self._run_waiting()

    def _run_waiting(self) -> None:
        while self._mailbox and self._can_run():
            invocation, _ = self._mailbox.popitem(last=False)
            invocation.leave_mailbox()
            self._begin(invocation, self._handlers[type(invocation.message)])
        if self._idle is not None and not self._running and not self._mailbox:
            self._idle.set()

    def _wait(self, invocation: Invocation) -> None:
        self._mailbox[invocation] = None
        cancelled = Cancelled(f"{self.name}: cancelled before it ran")
        invocation.on_cancel = partial(self._take_back, cancelled)
        if deadline := invocation.envelope.deadline:
            late = DeadlineExceeded(f"{self.name}: the deadline passed before it ran")
            invocation.timer = asyncio.get_running_loop().call_later(
                max(0.0, deadline - time.time()), self._take_back, late, invocation
            )

    def _take_back(self, error: OrchestraError, invocation: Invocation) -> None:
        self._mailbox.pop(invocation, None)
        invocation.leave_mailbox()
        count_message(self.kind.__name__, type(invocation.message).__name__, error.code, 0.0)
        self._report(invocation, error)
        self._run_waiting()

    def _report(self, invocation: Invocation, error: OrchestraError) -> None:
        """Answer a message that no handler answered for."""
        self._create_task(report(self.name, invocation, error), None)

    async def _until_idle(self, limit_s: float) -> bool:
        """Wait until no message runs or waits; False when `limit_s` seconds were not enough."""
        if not self._running and not self._mailbox:
            return True
        self._idle = asyncio.Event()
        try:
            async with asyncio.timeout(limit_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _abandon(self, error: OrchestraError) -> None:
        """Cancel what runs and refuse what waits, both with `error`."""
        waiting, self._mailbox = self._mailbox, OrderedDict()
        for task, running in list(self._running.items()):
            if running is not None:
                running.stop_error = error
            task.cancel()
        for invocation in waiting:
            invocation.leave_mailbox()
            self._report(invocation, error)
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_TIMEOUT_S)

    async def _renew(self) -> None:
        """Make an instance and start it; one that fails to start is stopped again."""
        self.actor = self._factory()
        try:
            await self.actor.started()
        except BaseException:
            await self._stop_actor()
            raise

    async def _stop_actor(self) -> None:
        """Call `stopped`; its failure is logged, and it has `STOP_TIMEOUT_S`."""
        assert self.actor is not None
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.actor.stopped()
        except Exception as error:
            log.error("%s failed to stop in good order", self.name, exc_info=error)

    async def _restart(self) -> None:
        """Stop the crashed instance and start a new one, after a pause; too many crashes end this."""
        await self._stop_actor()
        while (delay := self._restarts.after_crash(time.monotonic(), random.random())) is not None:
            await asyncio.sleep(delay)
            try:
                await self._renew()
            except Exception as error:
                log.error("%s did not restart", self.name, exc_info=error)
                self.last_error = error
                continue
            ACTOR_RESTARTS.labels(self.kind.__name__).inc()
            log.warning("%s restarted after %.2f s", self.name, delay)
            self.state = "running"
            self._run_waiting()
            return
        await self._fail()

    async def _fail(self) -> None:
        """Refuse everything from now on."""
        ACTORS_FAILED.labels(self.kind.__name__).inc()
        policy = self.kind.restart
        log.critical(
            "%s failed: more than %d restarts in %.0f s; the last error: %r",
            self.name,
            policy.max_restarts,
            policy.window_s,
            self.last_error,
        )
        self.state = "failed"
        await self._abandon(Unavailable(f"{self.name} failed: {self.last_error!r}"))
        self._on_failure()


@dataclass(frozen=True, slots=True)
class ActorRef:
    """How others send messages to an actor."""

    host: ActorHost
    own: bool = False
    """Whether this is the reference that an actor has to itself."""

    @property
    def name(self) -> str:
        return self.host.name

    def tell(self, message: Any, envelope: Envelope | None = None) -> None:
        """Put a message into the mailbox. Raises what `ActorHost.admit` raises."""
        self.deliver(message, NULL_SINK, envelope)

    def deliver(self, message: Any, sink: ResultSink, envelope: Envelope | None = None) -> Invocation:
        """Like `tell`, and the answer goes to `sink`; the returned invocation can be cancelled.

        `envelope` defaults to that of the message that the running handler works on.
        """
        invocation = Invocation(message, current_envelope.get() if envelope is None else envelope, sink)
        self.host.admit(invocation, own=self.own)
        return invocation
