"""A living actor: its mailbox and its running handlers.

There is no task per actor: a message that finds room starts a task at once, one that does not waits in a
bounded mailbox. An idle actor is a few small objects, so thousands fit in a process. What a handler raises
is the error of its message; a crash of the actor's own loops is for `restarter.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from actors.runtime.actor import Actor, HandlerSpec, handlers
from actors.runtime.envelope import current_envelope
from actors.runtime.failures import UNEXPECTED_ERRORS, internal_error, task_is_cancelled
from actors.runtime.invocation import Invocation
from actors.runtime.outcomes import count_message
from actors.runtime.restarter import STOP_S, Restarter
from actors.telemetry.telemetry import MAILBOX_REFUSED, span
from orchestration.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    MailboxFull,
    OrchestraError,
    ShuttingDown,
    Unavailable,
)

log = logging.getLogger(__name__)

State = Literal["starting", "running", "restarting", "draining", "stopped", "failed"]


class ActorHost:
    """Runs one actor. `factory` makes the instance, and a fresh one after each crash."""

    def __init__(self, name: str, kind: type[Actor], factory: Callable[[], Actor]) -> None:
        self.name = name
        self.kind = kind
        self.state: State = "starting"
        self.last_error: BaseException | None = None
        self.on_failure: Callable[[ActorHost], None] | None = None
        self.actor: Actor = Actor()
        self._factory = factory
        self._handlers = handlers(kind)
        self._mailbox: OrderedDict[Invocation, None] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()
        self._restarter: Restarter | None = None
        self._quiet: asyncio.Event | None = None
        """Made for a drain, and set when nothing waits or runs any more."""
        self._stop_error: OrchestraError | None = None

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
        """Start the actor. A failure of the first start is raised to whoever spawns it."""
        try:
            await self.renew()
        except BaseException:
            self.state = "stopped"
            await self._abandon(ShuttingDown(f"{self.name} did not start"))
            raise
        self.state = "running"
        self._fill()

    async def renew(self) -> None:
        """Make an instance and start it; one that fails to start is stopped again."""
        self.actor = self._factory()
        try:
            await self.actor.started()
        except BaseException:
            await self.stop_actor()
            raise

    async def stop_actor(self) -> None:
        """Call `stopped`, whose failure or slowness must not keep anybody from leaving."""
        try:
            async with asyncio.timeout(STOP_S):
                await self.actor.stopped()
        except Exception as error:
            log.error("%s failed to stop in good order", self.name, exc_info=error)

    def admit(self, work: Invocation, *, own: bool = False) -> None:
        """Take a message. Raises `MailboxFull`, `Unavailable` while draining, TypeError for a message
        that the actor has no handler for. While draining, the actor's `own` messages still come in: they
        carry on what was admitted."""
        spec = self.spec(work.message)
        if self.state == "stopped" or (self.state == "draining" and not own):
            raise ShuttingDown(f"{self.name} is draining", retry_after_s=1)
        if self.state == "failed":
            raise Unavailable(f"{self.name} gave up after repeated crashes; the last: {self.last_error!r}")
        able = self.state == "running" or self.state == "draining"
        if able and len(self._running) < self.kind.concurrency:
            self._begin(work, spec)
        elif len(self._mailbox) < self.kind.mailbox_size:
            self._wait(work)
        else:
            MAILBOX_REFUSED.labels(self.kind.__name__).inc()
            raise MailboxFull(
                f"{self.name} has {len(self._mailbox)} messages waiting, its mailbox_size", retry_after_s=1
            )

    def _wait(self, work: Invocation) -> None:
        self._mailbox[work] = None
        work.on_cancel = partial(self._take_back, Cancelled(f"{self.name}: taken back before it ran"))
        if work.envelope.deadline:
            late = DeadlineExceeded(f"{self.name}: the deadline passed before it ran")
            work.timer = asyncio.get_running_loop().call_later(
                max(0.0, work.envelope.deadline - time.time()), self._take_back, late, work
            )

    def _take_back(self, error: OrchestraError, work: Invocation) -> None:
        self._mailbox.pop(work, None)
        work.leave_mailbox()
        count_message(self.kind.__name__, type(work.message).__name__, error.code, 0.0)
        self._answer(work, error)
        self._fill()

    def _answer(self, work: Invocation, error: OrchestraError) -> None:
        """Tell whoever waits for a message that no handler ran for."""
        task = asyncio.get_running_loop().create_task(self._failed(work, error))
        self._running.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._fill()

    async def drain(self, limit_s: float) -> bool:
        """Stop admission, let everything admitted finish for up to `limit_s` seconds, cancel the rest,
        then stop. True when nothing had to be cancelled."""
        if self.state in ("stopped", "failed"):
            return True
        self.state = "draining"
        crashed = self._restarter is not None and await self._restarter.stop()
        self._stop_error = ShuttingDown(f"{self.name} was stopped before it finished")
        if crashed:  # no instance is there to work on what waits
            await self._abandon(ShuttingDown(f"{self.name} was stopped after a crash"))
            self.state = "stopped"
            return False
        clean = await self._calm(limit_s)
        if not clean:
            log.warning("%s: %d messages unfinished after %.1f s", self.name, self.running, limit_s)
            await self._abandon(self._stop_error)
        self.state = "stopped"
        await self.stop_actor()
        return clean

    async def _calm(self, limit_s: float) -> bool:
        """Wait until nothing runs or waits; False when `limit_s` seconds were not enough."""
        if not self._running and not self._mailbox:
            return True
        self._quiet = asyncio.Event()
        try:
            async with asyncio.timeout(limit_s):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    async def _abandon(self, error: OrchestraError) -> None:
        waiting, self._mailbox = self._mailbox, OrderedDict()
        for task in list(self._running):
            task.cancel()
        for work in waiting:
            work.leave_mailbox()
            self._answer(work, error)
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_S)

    def _begin(self, work: Invocation, spec: HandlerSpec) -> None:
        task = asyncio.get_running_loop().create_task(self._handle(work, spec, self.actor))
        work.task = task
        self._running.add(task)
        task.add_done_callback(partial(self._finished, work))

    def _finished(self, work: Invocation, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():  # cancelled before its first step, so it could not answer for itself
            self._answer(work, self._why_cancelled(work))
        elif (error := task.exception()) is not None:
            log.error("%s: an answer could not be given", self.name, exc_info=error)
        self._fill()

    def _why_cancelled(self, work: Invocation) -> OrchestraError:
        if self._stop_error is not None and not work.cancelled:
            return self._stop_error
        return Cancelled(f"{self.name} was told to stop")

    def _fill(self) -> None:
        able = self.state == "running" or self.state == "draining"
        while able and self._mailbox and len(self._running) < self.kind.concurrency:
            work, _ = self._mailbox.popitem(last=False)
            work.leave_mailbox()
            self._begin(work, self._handlers[type(work.message)])
        if self._quiet is not None and not self._running and not self._mailbox:
            self._quiet.set()

    async def _handle(self, work: Invocation, spec: HandlerSpec, actor: Actor) -> None:
        started = time.perf_counter()
        current_envelope.set(work.envelope)
        message = spec.message.__name__
        try:
            with span(f"{self.kind.__name__} {message}", parent=work.envelope.trace or None) as running:
                outcome, error, result = await self._call(work, spec, actor)
                if error is not None:
                    running.set_attribute("error.type", outcome)
            if error is None:
                outcome = await self._done(work, result)
            else:
                await self._failed(work, error)
        except asyncio.CancelledError:
            outcome = "cancelled"
            await self._failed(work, self._why_cancelled(work))
        count_message(self.kind.__name__, message, outcome, time.perf_counter() - started)

    async def _done(self, work: Invocation, result: Any) -> str:
        """Hand over the result; the outcome's name."""
        try:
            await work.sink.done(result)
        except OrchestraError as failure:  # NATS is away
            log.warning("%s could not deliver its answer: %s", self.name, failure)
            return failure.code
        except UNEXPECTED_ERRORS as failure:
            reported = internal_error(f"the answer of {self.name}", failure, self.kind.__name__)
            await self._failed(work, reported)
            return reported.code
        return "ok"

    async def _failed(self, work: Invocation, error: OrchestraError) -> None:
        try:
            await work.sink.failed(error)
        except OrchestraError as failure:
            log.warning("%s could not deliver its error: %s", self.name, failure)

    async def _call(
        self, work: Invocation, spec: HandlerSpec, actor: Actor
    ) -> tuple[str, OrchestraError | None, Any]:
        """Run the handler. Gives the outcome's name, the error to report, and the result."""
        deadline = work.envelope.deadline
        limit = None
        try:
            handle = getattr(actor, spec.method)
            if not deadline:
                return "ok", None, await self._run(handle, work, spec)
            limit = asyncio.timeout(work.envelope.remaining(0))
            async with limit:
                return "ok", None, await self._run(handle, work, spec)
        except TimeoutError as error:
            if limit is not None and limit.expired():
                return "deadline_exceeded", DeadlineExceeded(f"{self.name} ran out of time"), None
            return self._failure(work, error)
        except asyncio.CancelledError as error:
            if task_is_cancelled():
                raise
            return self._failure(work, error)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - whoever asked waits for an answer, whatever a library raises
            return self._failure(work, error)

    def _failure(self, work: Invocation, error: BaseException) -> tuple[str, OrchestraError, None]:
        reported = internal_error(self.name, error, self.kind.__name__)
        if isinstance(reported, InternalError) and (work.cancelled or self._stop_error is not None):
            reported = self._why_cancelled(work)  # which is how its code met that
        return reported.code, reported, None

    @staticmethod
    async def _run(handle: Callable[[Any], Any], work: Invocation, spec: HandlerSpec) -> Any:
        called = handle(work.message)
        if not spec.streams:
            return await called
        try:
            async for value in called:
                await work.sink.item(value)
        finally:
            await called.aclose()
        return None

    def crashed(self, actor: Actor, error: BaseException) -> None:
        """One of the actor's own loops ended with an exception: have a fresh instance take over."""
        log.error("%s crashed", self.name, exc_info=error)
        self.last_error = error
        if actor is self.actor and self.state == "running":
            self.state = "restarting"
            if self._restarter is None:
                self._restarter = Restarter(self)
            self._restarter.begin()

    def resume(self) -> None:
        """A fresh instance is there: take up what waited meanwhile."""
        self.state = "running"
        self._fill()

    async def fail(self) -> None:
        """Refuse everything from now on, and tell whoever owns this."""
        self.state = "failed"
        self._stop_error = Unavailable(f"{self.name} gave up: {self.last_error!r}")
        await self._abandon(self._stop_error)
        if self.on_failure is not None:
            self.on_failure(self)
