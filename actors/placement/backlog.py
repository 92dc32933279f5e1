"""Which models have generations that wait in a queue: reported by dispatchers, followed by direct callers.

While generations of a model wait, others queue behind them instead of going straight to a node.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from pydantic import ValidationError

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.subjects import BACKLOG_SUBJECT, FREED_SUBJECT
from orchestration.errors import OrchestraError
from orchestration.messages import Wire

log = logging.getLogger(__name__)

REPEAT_S = 1.0
"""Time between two reports of an unchanged backlog."""
EXPIRY_S = 3.5
"""Age of a dispatcher's last report after which its backlog counts as gone: the dispatcher is."""
HOLD_S = 0.1
"""How long a model stays in the reports after its last generation got a node: near saturation a queue is
empty again and again for moments."""
INTERVAL_S = 0.02
"""Minimum time between two reports."""
MAX_MODELS = 500
"""Maximum models in one report."""
MAX_DISPATCHERS = 1000


class BacklogReport(Wire):
    """The models with waiting generations at one dispatcher. An empty report clears the previous one."""

    dispatcher: str
    models: tuple[str, ...] = ()


class BacklogReporter:
    """Reports the backlog of one dispatcher.

    `waits` returns whether generations of a model wait. `on_freed` is called with a node on which a direct
    call has ended. `with_rivals` adds the models that share a node's memory with one of the given models:
    they would keep it from being loaded.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        waits: Callable[[str], bool],
        on_freed: Callable[[str], None],
        with_rivals: Callable[[Iterable[str]], Iterable[str]],
    ) -> None:
        self.bus = bus
        self.name = name
        self._waits = waits
        self._on_freed = on_freed
        self._with_rivals = with_rivals
        self._subscription: Subscription | None = None
        self._seen_at: dict[str, float] = {}
        """When a generation of each reported model was last seen waiting."""
        self._timer: asyncio.TimerHandle | None = None
        self._reported: tuple[str, ...] = ()
        self._reported_at = 0.0

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(FREED_SUBJECT, self._freed)

    def note(self, model: str) -> None:
        """A generation of `model` waits for a node."""
        now = time.monotonic()
        new = model not in self._seen_at
        self._seen_at[model] = now
        if new:
            self._schedule(self._reported_at + INTERVAL_S - now)

    async def stop(self) -> None:
        """Clear this dispatcher's backlog."""
        self._seen_at.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._report()
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def _freed(self, message: Message) -> None:
        if self._seen_at:
            self._on_freed(message.data.decode(errors="replace"))

    def _schedule(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, seconds)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due, self._due)

    def _due(self) -> None:
        self._timer = None
        now = time.monotonic()
        for model, seen_at in list(self._seen_at.items()):
            if self._waits(model):
                self._seen_at[model] = now
            elif now - seen_at > HOLD_S:
                del self._seen_at[model]
        self._report()
        if self._seen_at:
            self._schedule(HOLD_S)

    def _report(self) -> None:
        models = tuple(sorted(self._with_rivals(self._seen_at))[:MAX_MODELS]) if self._seen_at else ()
        now = time.monotonic()
        if models == self._reported and (not models or now - self._reported_at < REPEAT_S):
            return
        report = BacklogReport(dispatcher=self.name, models=models)
        try:
            self.bus.post(BACKLOG_SUBJECT, report.model_dump_json().encode())
        except OrchestraError as error:
            log.debug("cannot report the backlog: %s", error)
            return
        self._reported, self._reported_at = models, now


class BacklogMonitor:
    """The models with waiting generations at any dispatcher."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._reports: dict[str, tuple[float, frozenset[str]]] = {}
        """Time of arrival and models of each dispatcher's last report that was not empty."""
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(BACKLOG_SUBJECT, self._received)

    async def stop(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def waits(self, model: str) -> bool:
        """Whether generations of `model` wait."""
        if not self._reports:
            return False
        expired = time.monotonic() - EXPIRY_S
        for dispatcher, (at, models) in list(self._reports.items()):
            if at < expired:
                del self._reports[dispatcher]
            elif model in models:
                return True
        return False

    def freed(self, node: str) -> None:
        """Tell the dispatchers that a slot of `node` is free."""
        try:
            self.bus.post(FREED_SUBJECT, node.encode())
        except OrchestraError as error:
            log.debug("cannot report a free slot: %s", error)

    def _received(self, message: Message) -> None:
        try:
            report = BacklogReport.model_validate_json(message.data)
        except ValidationError as error:
            log.debug("a backlog report cannot be read: %s", error)
            return
        if not report.models:
            self._reports.pop(report.dispatcher, None)
        elif report.dispatcher in self._reports or len(self._reports) < MAX_DISPATCHERS:
            self._reports[report.dispatcher] = (time.monotonic(), frozenset(report.models))
