"""Replays the events of this process's runs to those who subscribe to `events.run.<id>` late.

A request to `events.replay.<id>` with `{"after": SEQ}` goes to all coordinators. The one that has the run, or
had it within the last `HISTORY_S`, answers with its events after that number, one JSON object a line. The
header `Orchestra-Caller` names the caller of the run, and `Orchestra-Run-State: ended` says that these events
are the last. The other coordinators do not answer.
"""

from __future__ import annotations

import logging
import time
from collections import deque

from pydantic import ValidationError

from actors.agents.run_event_publisher import RunEventPublisher
from actors.bus.bus import Bus, Message, Subscription
from actors.bus.subjects import RunAddress
from actors.runtime.envelope import CALLER
from actors.streams.run_events import ENDED, EVENTS, STATE_HEADER, ReplayRequest

log = logging.getLogger(__name__)

HISTORY_S = 60.0
"""Seconds after the end of a run for which its events stay available."""
MAX_BYTES = 8 * 2**20
"""Maximum size of the events of runs that have ended; the oldest runs are forgotten first."""


class RunEventHistory:
    """The events of one process's runs, at work and ended."""

    def __init__(self, bus: Bus, *, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.bus = bus
        self._runs: dict[str, RunEventPublisher] = {}
        self._ended: deque[tuple[float, RunEventPublisher]] = deque()
        self._bytes = 0
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(RunAddress.REPLAYS, self._on_replay)

    async def stop(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def begin(self, run_events: RunEventPublisher) -> None:
        self._runs[run_events.run_id] = run_events

    def end(self, run_events: RunEventPublisher) -> None:
        """Keep it for a while. Harmless for a run that was not begun."""
        if self._runs.get(run_events.run_id) is not run_events:
            return
        now = time.monotonic()
        self._ended.append((now, run_events))
        self._bytes += run_events.size
        while self._ended and (self._ended[0][0] < now - HISTORY_S or self._bytes > self.max_bytes):
            _, oldest = self._ended.popleft()
            self._bytes -= oldest.size
            if self._runs.get(oldest.run_id) is oldest:
                del self._runs[oldest.run_id]

    def _on_replay(self, message: Message) -> None:
        run_events = self._runs.get(RunAddress.of_replay(message.subject).id)
        if run_events is None:
            return
        try:
            after = ReplayRequest.model_validate_json(message.data or b"{}").after
        except ValidationError as error:
            log.debug("a request on %s cannot be read: %s", message.subject, error)
            return
        headers = {CALLER: run_events.caller, STATE_HEADER: ENDED if run_events.over else EVENTS}
        self.bus.answer(message, run_events.since(after), headers=headers)
