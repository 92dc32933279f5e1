"""Reads the events of a run, from the first one or after a given number."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.subjects import RunAddress
from actors.runtime.envelope import CALLER
from orchestration.errors import InvalidRequest, OrchestraError
from orchestration.messages import Wire

STATE_HEADER = "Orchestra-Run-State"
"""State of the run at the process that answers: `events`, `ended` or `waiting`."""
EVENTS = "events"
ENDED = "ended"
"""The process has all events of the run, which has ended."""
QUEUED = "waiting"
"""The process holds the run's caller; the run may wait in the queue."""

REPLY_TIMEOUT_S = 1.0
"""How long to wait for the process that has the run. It answers within milliseconds; others do not answer."""
MAX_QUIET_S = 10.0
"""How long a run may be silent before its coordinator is looked for again."""
MAX_BUFFERED_MESSAGES = 1_024
"""Maximum messages that wait for a slow reader; beyond it they are dropped and requested again."""


RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{1,64}")


class ReplayRequest(Wire):
    """Requests the events of a run after the number `after`."""

    after: int = -1


class NoSuchRun(InvalidRequest):
    """The run is unknown, or belongs to another caller."""

    status = 404
    code = "no_such_run"

    @classmethod
    def of(cls, run_id: str) -> NoSuchRun:
        return cls(
            f"no run {run_id[:80]!r} is at work or has ended within a minute; "
            "a single generation has no events",
            param="id",
        )


@dataclass(frozen=True, slots=True)
class RecordedRunEvent:
    """One event: its number, its type, and the JSON object itself."""

    seq: int
    type: str
    data: bytes


class RunEventReader:
    """Reads the events of a run after number `after`. Enter it with `async with`, then iterate `events`.

    Once entered, `owner` is the caller of the run, or None if no coordinator has the run; `over` says whether
    the run has ended.
    """

    def __init__(
        self,
        bus: Bus,
        run_id: str,
        after: int = -1,
        *,
        reply_timeout_s: float = REPLY_TIMEOUT_S,
        max_quiet_s: float = MAX_QUIET_S,
        max_buffered: int = MAX_BUFFERED_MESSAGES,
    ) -> None:
        """Raises `NoSuchRun` if `run_id` is not the id of a run."""
        if RUN_ID.fullmatch(run_id) is None:
            raise NoSuchRun.of(run_id)
        self.bus = bus
        self.reply_timeout_s = reply_timeout_s
        self.max_quiet_s = max_quiet_s
        self.run = RunAddress(run_id)
        self.owner: str | None = None
        self.over = False
        self._after = after
        self.replayed = b""
        """The events so far when it was entered, one JSON object a line."""
        self._events: asyncio.Queue[bytes] = asyncio.Queue(max_buffered)
        self._overflowed = False
        self._failure: OrchestraError | None = None
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        self._subscription = await self.bus.subscribe(self.run.events, self._on_event)
        await self.bus.flush()
        self.replayed = await self._ask()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def end(self, error: OrchestraError) -> None:
        """Make `events` raise `error`."""
        self._failure = error
        if self._events.empty():
            self._events.put_nowait(b"")

    async def events(self, waits: Callable[[], Awaitable[bool]]) -> AsyncGenerator[RecordedRunEvent, None]:
        """Yield each event as it comes, up to the end of the run.

        When no coordinator has the run, `waits` is called: whether the run still waits for one. Raises
        `NoSuchRun` when it does not, and what the bus raises.
        """
        lines = self.replayed
        while True:
            for event in _read(lines, self._after):
                self._after = event.seq
                yield event
                if event.type == "ended":
                    return
            if self.over:
                return
            lines = await self._next(waits)

    async def _next(self, waits: Callable[[], Awaitable[bool]]) -> bytes:
        """The next events: as published, or from the coordinator after a silence or an overflow."""
        if not self._overflowed:
            try:
                async with asyncio.timeout(self.max_quiet_s):
                    event = await self._events.get()
                if self._failure is not None:
                    raise self._failure
                return event
            except TimeoutError:
                pass
        self._overflowed, self.owner = False, None
        lines = await self._ask()
        if self.owner is None and not await waits():
            raise NoSuchRun.of(self.run.id)
        return lines

    def _on_event(self, message: Message) -> None:
        try:
            self._events.put_nowait(message.data)
        except asyncio.QueueFull:
            self._overflowed = True
            while not self._events.empty():
                self._events.get_nowait()

    async def _ask(self) -> bytes:
        """The earlier events, from the coordinator that has the run; sets `owner`."""
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def on_reply(message: Message) -> None:
            if message.status:  # no subscriber at all
                answered.set_result(b"")
                return
            self.owner, holds = message.header(CALLER), message.header(STATE_HEADER)
            if holds != QUEUED and not answered.done():
                self.over = holds == ENDED
                answered.set_result(message.data)

        reply = self.bus.expect(on_reply)
        try:
            body = ReplayRequest(after=self._after).model_dump_json().encode()
            await self.bus.publish(self.run.replay, body, reply=reply)
            async with asyncio.timeout(self.reply_timeout_s):
                return await answered
        except TimeoutError:
            return b""
        finally:
            self.bus.forget(reply)


def _read(lines: bytes, after: int) -> list[RecordedRunEvent]:
    """The events of a message that come after that number."""
    found = []
    for line in lines.splitlines():
        event = json.loads(line)
        if event["seq"] > after:
            found.append(RecordedRunEvent(event["seq"], event["type"], line))
    return found
