"""Publishes the events of a run on NATS."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

from pydantic_core import from_json, to_json

from actors.bus.bus import Bus
from actors.bus.subjects import RunAddress
from orchestration.errors import OrchestraError
from orchestration.fitting import shortened

log = logging.getLogger(__name__)

TOGETHER_S = 0.1
"""Events wait so long for others, to go out in one message: a page is drawn no more often, and a run that is
over at once costs one message."""
MAX_BYTES = 128 * 1024
"""That wait: more go out at once, since a message has a limit."""
MAX_TEXT = 16 * 1024
"""Characters of one event of text."""
HISTORY_BYTES = 256 * 1024
"""Maximum size of the events kept for a run: dozens of steps with their texts, and less than one message may
hold."""
ATTEMPT_SEQS = 1_000_000
"""Numbers that a coordinator has for a run, so that those of the next one are higher."""


class RunEventPublisher:
    """The events of one run, numbered and published as `events.run.<id>`, one JSON object a line.

    Events that NATS cannot take are lost: nothing relies on them. The latest `max_bytes` are kept for
    readers that come late.
    """

    def __init__(
        self,
        bus: Bus,
        run_id: str,
        attempt: int = 1,
        caller: str = "",
        *,
        max_bytes: int = HISTORY_BYTES,
    ) -> None:
        self.max_bytes = max_bytes
        self.bus = bus
        self.run_id = run_id
        self.attempt = attempt
        self.caller = caller
        self.size = 0
        """Size of the kept events in bytes."""
        self.over = False
        """Whether the last event of the run was published; False where another attempt follows."""
        self._history: deque[tuple[int, bytes]] = deque()
        self._subject = RunAddress(run_id).events
        self._seq = (attempt - 1) * ATTEMPT_SEQS
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._texts: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, type: str, data: dict[str, Any]) -> None:
        """The next event. Values of `data` may be pydantic models."""
        self._end_text()
        self._add(type, data)
        self.over = type == "ended"
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOGETHER_S, self.flush)

    def add_text(self, text: str) -> None:
        """Text for the caller; what comes soon after goes into the same event."""
        self._texts.append(text)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOGETHER_S, self.flush)

    def flush(self) -> None:
        """Publish what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._end_text()
        self._post()

    def since(self, seq: int) -> bytes:
        """The events after number `seq`, a line each, as far as they are kept."""
        self.flush()
        return b"\n".join(event for number, event in self._history if number > seq)

    def _post(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if not waiting:
            return
        try:
            self.bus.post(self._subject, b"\n".join(waiting))
        except OrchestraError as error:
            log.debug("events of run %s are lost: %s", self.run_id, error)

    def _end_text(self) -> None:
        if self._texts:
            text, self._texts = "".join(self._texts), []
            for start in range(0, len(text), MAX_TEXT):
                self._add("text_delta", {"text": text[start : start + MAX_TEXT]})

    @staticmethod
    def _shortened(head: dict[str, Any], data: dict[str, Any], size: int) -> bytes:
        """An event as it fits, `cut` being the bytes that it had."""
        for limit in (8_192, 512, 32):
            event = to_json(shortened(data, limit) | head | {"cut": size})
            if len(event) <= MAX_BYTES:
                return event
        return to_json(head | {"cut": size})

    def _add(self, type: str, data: dict[str, Any]) -> None:
        head = {"run": self.run_id, "seq": self._seq, "at": round(time.time(), 3), "type": type}
        event = to_json(head | data, exclude_none=True)
        if len(event) > MAX_BYTES:
            event = self._shortened(head, from_json(event), len(event))
        self._history.append((self._seq, event))
        self.size += len(event)
        while self.size > self.max_bytes:
            self.size -= len(self._history.popleft()[1])
        self._seq += 1
        if self._bytes + len(event) > MAX_BYTES:
            self._post()
        self._bytes += len(event)
        self._waiting.append(event)
