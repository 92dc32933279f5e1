"""What happened in the runs of this process, for whoever comes late to `events.run.<id>`.

A request to `events.replay.<id>` with `{"after": SEQ}` goes to all coordinators. The one that has the run, or
had it within the last `KEPT_S`, answers with its events after that number, one JSON object a line, and names
its caller in the header `Orchestra-Caller`; `Orchestra-Holds: ended` says that no more will come. The others
are silent.
"""

from __future__ import annotations

import logging
import time
from collections import deque

from pydantic import ValidationError

from actors.agents.run_event_publisher import Happenings
from actors.bus.bus import Bus, Message, Subscription
from actors.bus.subjects import RunAddress
from actors.runtime.envelope import CALLER
from actors.streams.run_events import ENDED, HOLDS, TELLS, AskReplay
from orchestration.errors import OrchestraError

log = logging.getLogger(__name__)

KEPT_S = 60.0
"""After the end of a run."""
MAX_BYTES = 8 * 2**20
"""Of runs that have ended; the oldest are forgotten first."""


class Chronicle:
    """Of one process. Runs at work are bounded by whoever begins them."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._runs: dict[str, Happenings] = {}
        self._ended: deque[tuple[float, Happenings]] = deque()
        self._bytes = 0
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(RunAddress.REPLAYS, self._asked)

    async def stop(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def begin(self, happenings: Happenings) -> None:
        self._runs[happenings.run_id] = happenings

    def end(self, happenings: Happenings) -> None:
        """Keep it for a while. Harmless for a run that was not begun."""
        if self._runs.get(happenings.run_id) is not happenings:
            return
        now = time.monotonic()
        self._ended.append((now, happenings))
        self._bytes += happenings.size
        while self._ended and (self._ended[0][0] < now - KEPT_S or self._bytes > MAX_BYTES):
            _, oldest = self._ended.popleft()
            self._bytes -= oldest.size
            if self._runs.get(oldest.run_id) is oldest:
                del self._runs[oldest.run_id]

    def _asked(self, message: Message) -> None:
        happenings = self._runs.get(RunAddress.of_replay(message.subject).id)
        if happenings is None:
            return
        try:
            after = AskReplay.model_validate_json(message.data or b"{}").after
            headers = {CALLER: happenings.caller, HOLDS: ENDED if happenings.over else TELLS}
            self.bus.post(message.reply, happenings.since(after), headers=headers)
        except (ValidationError, OrchestraError, ValueError) as error:
            log.debug("could not tell on %s what happened: %s", message.subject, error)
