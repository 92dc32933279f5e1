"""A living actor: its mailbox, its running handlers, and its supervisor.

There is no task per actor: a message that finds room starts a task at once, one that does not waits in a
bounded deque. An idle actor is a few small objects, so thousands fit in a process.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from actors.runtime.actor import Actor, HandlerSpec, handlers
from actors.runtime.envelope import current
from actors.runtime.supervision import Restarts
from actors.runtime.telemetry import (
    ACTOR_GIVEN_UP,
    ACTOR_MESSAGES,
    ACTOR_RESTARTS,
    ACTOR_SECONDS,
    MAILBOX_REFUSED,
    span,
)
from actors.runtime.work import Work
from orchestration.errors import (
    Cancelled,
    DeadlineExceeded,
    Defect,
    MailboxFull,
    OrchestraError,
    Unavailable,
)

log = logging.getLogger(__name__)

State = Literal["running", "restarting", "draining", "stopped", "given up"]


class Cell:
    """Runs one actor. `factory` makes the instance, and a fresh one after each crash."""

    def __init__(self, name: str, kind: type[Actor], factory: Callable[[], Actor]) -> None:
        self.name = name
        self.kind = kind
        self.state: State = "running"
        self.last_error: BaseException | None = None
        self.on_give_up: Callable[[Cell], None] | None = None
        self._factory = factory
        self._actor: Actor = Actor()
        self._handlers = handlers(kind)
        self._mailbox: deque[Work] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._restarts = Restarts(kind.restart)
        self._restarting: asyncio.Task[None] | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def actor(self) -> Actor:
        return self._actor

    @property
    def waiting(self) -> int:
        return len(self._mailbox)

    @property
    def running(self) -> int:
        return len(self._running)

    async def start(self) -> None:
        """Start the actor. A failure of the first start is raised to whoever spawns it."""
        self._actor = self._factory()
        await self._actor.started()

    def admit(self, work: Work) -> None:
        """Take a message. Raises `MailboxFull`, `Unavailable` while draining, TypeError for a message
        that the actor has no handler for."""
        if type(work.message) not in self._handlers:
            raise TypeError(f"{self.name} has no handler for {type(work.message).__name__}")
        if self.state in ("draining", "stopped"):
            raise Unavailable(f"{self.name} is draining", retry_after_s=1)
        if self.state == "given up":
            raise Unavailable(f"{self.name} gave up after repeated crashes; the last: {self.last_error!r}")
        self._quiet.clear()
        if self.state == "running" and len(self._running) < self.kind.concurrency:
            self._begin(work)
        elif len(self._mailbox) < self.kind.mailbox_size:
            self._mailbox.append(work)
        else:
            MAILBOX_REFUSED.labels(self.kind.__name__).inc()
            raise MailboxFull(
                f"{self.name} has {len(self._mailbox)} messages waiting, its mailbox_size", retry_after_s=1
            )

    async def drain(self, limit_s: float) -> bool:
        """Stop admission, let everything admitted finish for up to `limit_s` seconds, cancel the rest,
        then stop. True when nothing had to be cancelled."""
        if self.state in ("stopped", "given up"):
            return True
        self.state = "draining"
        if self._restarting is not None:
            self._restarting.cancel()
        self._fill()
        try:
            await asyncio.wait_for(self._quiet.wait(), limit_s)
            clean = True
        except TimeoutError:
            clean = False
            log.warning("%s: %d messages unfinished after %.1f s", self.name, len(self._running), limit_s)
            await self._abandon(Unavailable(f"{self.name} was stopped before it finished"))
        self.state = "stopped"
        await self._actor.stopped()
        return clean

    async def _abandon(self, error: OrchestraError) -> None:
        waiting, self._mailbox = self._mailbox, deque()
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=5)
        for work in waiting:
            await work.sink.failed(error)

    def _begin(self, work: Work) -> None:
        spec = self._handlers[type(work.message)]
        task = asyncio.get_running_loop().create_task(self._handle(work, spec, self._actor))
        work.task = task
        self._running.add(task)
        task.add_done_callback(partial(self._finished, work))

    def _finished(self, work: Work, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():  # cancelled before its first step, so it could not answer for itself
            error = Cancelled(f"{self.name} was told to stop")
            answer = asyncio.get_running_loop().create_task(work.sink.failed(error))
            self._running.add(answer)
            answer.add_done_callback(self._running.discard)
        self._fill()

    def _fill(self) -> None:
        while (
            self._mailbox
            and len(self._running) < self.kind.concurrency
            and self.state in ("running", "draining")
        ):
            self._begin(self._mailbox.popleft())
        if not self._running and not self._mailbox:
            self._quiet.set()

    async def _handle(self, work: Work, spec: HandlerSpec, actor: Actor) -> None:
        started = time.perf_counter()
        current.set(work.envelope)
        message = spec.message.__name__
        try:
            with span(f"{self.kind.__name__} {message}", parent=work.envelope.trace):
                outcome, error, result = await self._call(work, spec, actor)
            if error is None:
                await work.sink.done(result)
            else:
                await work.sink.failed(error)
        except asyncio.CancelledError:
            outcome = "cancelled"
            await work.sink.failed(Cancelled(f"{self.name} was told to stop"))
        except OrchestraError as failure:  # the sink could not deliver: NATS is away
            outcome = failure.code
            log.warning("%s could not deliver its answer: %s", self.name, failure)
        ACTOR_MESSAGES.labels(self.kind.__name__, message, outcome).inc()
        ACTOR_SECONDS.labels(self.kind.__name__, message).observe(time.perf_counter() - started)

    async def _call(
        self, work: Work, spec: HandlerSpec, actor: Actor
    ) -> tuple[str, OrchestraError | None, Any]:
        """Run the handler. Gives the outcome's name, the error to report, and the result."""
        deadline = work.envelope.deadline
        try:
            if work.cancelled:
                raise Cancelled(f"{self.name}: taken back before it ran")
            async with asyncio.timeout(work.envelope.remaining(0) if deadline else None):
                handled = getattr(actor, spec.method)(work.message)
                if not spec.streams:
                    return "ok", None, await handled
                try:
                    async for value in handled:
                        await work.sink.item(value)
                finally:
                    await handled.aclose()
                return "ok", None, None
        except OrchestraError as error:
            return error.code, error, None
        except TimeoutError as error:
            if not deadline or time.time() < deadline:
                return "crashed", self._crashed(actor, error), None
            return "deadline_exceeded", DeadlineExceeded(f"{self.name} ran out of time"), None
        except Exception as error:  # noqa: BLE001 - the one place where a crash becomes a restart
            return "crashed", self._crashed(actor, error), None

    def _crashed(self, actor: Actor, error: Exception) -> OrchestraError:
        log.error("%s crashed", self.name, exc_info=error)
        self.last_error = error
        if actor is self._actor and self.state == "running":
            self.state = "restarting"
            self._restarting = asyncio.get_running_loop().create_task(self._restart())
        return Defect(f"{self.name} failed: {type(error).__name__}: {error}")

    async def _restart(self) -> None:
        while True:
            delay = self._restarts.after_crash(time.monotonic(), random.random())
            await self._stop_crashed()
            if delay is None:
                await self._give_up()
                return
            await asyncio.sleep(delay)
            try:
                self._actor = self._factory()
                await self._actor.started()
            except Exception as error:
                log.error("%s did not come back", self.name, exc_info=error)
                self.last_error = error
                continue
            ACTOR_RESTARTS.labels(self.kind.__name__).inc()
            log.warning("%s restarted after %.2f s", self.name, delay)
            self.state = "running"
            self._fill()
            return

    async def _stop_crashed(self) -> None:
        try:
            await self._actor.stopped()
        except Exception as error:
            log.error("%s failed to stop after its crash", self.name, exc_info=error)

    async def _give_up(self) -> None:
        self.state = "given up"
        ACTOR_GIVEN_UP.labels(self.kind.__name__).inc()
        log.critical(
            "%s gave up: more than %d crashes in %.0f s; the last: %r",
            self.name,
            self.kind.restart.max_restarts,
            self.kind.restart.window_s,
            self.last_error,
        )
        await self._abandon(Unavailable(f"{self.name} gave up: {self.last_error!r}"))
        if self.on_give_up is not None:
            self.on_give_up(self)
