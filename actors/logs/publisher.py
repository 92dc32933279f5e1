"""Publishes the events of a process to the stream `LOGS`, in the background.

Recording an event appends it to a buffer of bounded size. A task encodes and publishes what is there a moment
later, and keeps each event until the stream has acknowledged it. While NATS is away events wait; without room
they are counted, and a `log.gap` event tells how many were lost and when, as soon as there is room again. An
event that is sent twice, because its acknowledgement was lost, is stored once by its id.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.jetstream import MESSAGE_ID_HEADER, stored
from actors.logs.event_form import cut_event, encoded_event, estimated_bytes, subject_of
from actors.logs.metrics import DROPPED, PUBLISHED, WAITING
from actors.logs.settings import LogsSettings
from actors.telemetry.event_log import EventLog
from orchestration.errors import BusUnavailable, InternalError, OrchestraError, PayloadTooLarge
from orchestration.log_events import LogEvent, LogLevel

log = logging.getLogger(__name__)

TURN = 100
"""Events that are encoded before other work of the event loop gets its turn."""
WINDOW = 1_000
"""Maximum events that are sent and not acknowledged yet."""
ACK_TIMEOUT_S = 5.0
"""An event without an acknowledgement after this long is sent again."""
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses after failures in a row."""
CLOSE_S = 3.0
"""Time in which the remaining events are published when the process ends."""


@dataclass(slots=True)
class _Sent:
    """One encoded event on its way."""

    id: str
    subject: str
    body: bytes
    size: int
    """What it counts in the buffer, in bytes."""
    at: float = 0.0
    """Monotonic time at which it was sent."""


@dataclass(slots=True)
class _Loss:
    """Events lost since the last `log.gap`."""

    count: int = 0
    first_at: float = 0.0
    last_at: float = 0.0


class LogPublisher:
    """Takes the events of `source` from `start` to `stop`."""

    def __init__(self, bus: Bus, settings: LogsSettings, source: EventLog) -> None:
        self.bus = bus
        self.settings = settings
        """Read at each use, so that a change has its effect at once."""
        self.source = source
        self._waiting: deque[tuple[LogEvent, int]] = deque()
        self._again: deque[_Sent] = deque()
        """Encoded events that must be sent again."""
        self._sent: dict[int, _Sent] = {}
        self._bytes = 0
        self._loss = _Loss()
        self._number = 0
        self._published = 0
        """Events that were acknowledged and are not counted in the metric yet."""
        self._inbox = f"{bus.inbox}.log_acks_{token_hex(4)}"
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        """Whether the stream has acknowledged every event."""
        self._scheduled = False
        self._failures = 0
        self._thread = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None

    def use(self, settings: LogsSettings) -> None:
        """Use changed settings; with `publish` off, events that come from now on are not taken."""
        self.settings = settings
        self.source.remove_sink(self.take)
        if settings.publish and self._task is not None:
            self.source.add_sink(self.take)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._subscription = await self.bus.subscribe(f"{self._inbox}.*", self._on_ack)
        self.bus.on_reconnect.append(self._on_reconnect)
        self._task = self._loop.create_task(self._run())
        self.use(self.settings)
        WAITING.set_function(lambda: self.pending)

    async def stop(self) -> None:
        """Publish what waits within `CLOSE_S`; the rest is counted as lost."""
        self.source.remove_sink(self.take)
        if self._loss.count:
            self._tell_loss()
        self._wake.set()
        try:
            async with asyncio.timeout(CLOSE_S if self.bus.connected else 0):
                if self.pending:
                    await self._idle.wait()
        except TimeoutError:
            log.warning("%d events of the log were not published: NATS did not take them", self.pending)
            DROPPED.labels("shutdown").inc(self.pending)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._on_reconnect in self.bus.on_reconnect:
            self.bus.on_reconnect.remove(self._on_reconnect)
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        WAITING.set(0)

    @property
    def pending(self) -> int:
        """Events that the stream has not acknowledged."""
        return len(self._waiting) + len(self._again) + len(self._sent)

    @property
    def _max_event_bytes(self) -> int:
        return self.settings.max_event_kib * 1024

    def take(self, event: LogEvent) -> None:
        """The sink: keep the event for the next flush. Any thread may call it."""
        if threading.get_ident() != self._thread:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self.take, event)
            return
        size = estimated_bytes(event)
        if size > self._max_event_bytes:
            event = cut_event(event, self._max_event_bytes)
            size = estimated_bytes(event)
        max_bytes = self.settings.buffer_mib * 2**20
        if self.pending >= self.settings.buffer_events or self._bytes + size > max_bytes:
            self._lose(event.at, "full")
            return
        self._waiting.append((event, size))
        self._bytes += size
        self._idle.clear()
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_later(self.settings.flush_s, self._wake.set)

    def _lose(self, at: float, reason: str) -> None:
        DROPPED.labels(reason).inc()
        loss = self._loss
        if not loss.count:
            loss.first_at = at
        loss.count, loss.last_at = loss.count + 1, at

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(ACK_TIMEOUT_S if self._sent else None):
                    await self._wake.wait()
            self._wake.clear()
            self._resend_late()
            self._scheduled = False
            try:
                await self._drain()
            except BusUnavailable as error:
                log.debug("events wait for NATS: %s", error)
                await self._pause()
            except Exception:  # a defect must not end the log of the process
                log.exception("publishing events failed")
                await self._pause()

    async def _pause(self) -> None:
        pause_s = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        await asyncio.sleep(pause_s)
        self._wake.set()

    async def _drain(self) -> None:
        """Send what waits, as far as the window allows."""
        self._count_published()
        turn = 0
        while (self._again or self._waiting) and len(self._sent) < WINDOW:
            sent = self._again.popleft() if self._again else self._encoded(*self._waiting.popleft())
            if sent is not None:
                self._send(sent)
            turn += 1
            if turn % TURN == 0:
                await self._give_way()
        if not self.pending:
            self._idle.set()
        if self._loss.count and self.pending < self.settings.buffer_events // 2:
            self._tell_loss()

    def _encoded(self, event: LogEvent, size: int) -> _Sent | None:
        try:
            body = encoded_event(event, self._max_event_bytes)
        except ValueError as error:
            self._bytes -= size
            self._lose(event.at, "invalid")
            log.debug("an event is lost: %s", error)
            return None
        return _Sent(event.id, subject_of(event), body, size)

    async def _give_way(self) -> None:
        """Let other work of the event loop run, and wait while NATS takes messages more slowly than they
        come."""
        if self.bus.nats.should_wait:
            await self.bus.nats.wait_for_socket()
        else:
            await asyncio.sleep(0)

    def _send(self, sent: _Sent) -> None:
        self._number += 1
        number = self._number
        sent.at = time.monotonic()
        self._sent[number] = sent
        try:
            headers = {MESSAGE_ID_HEADER: sent.id}
            self.bus.post(sent.subject, sent.body, reply=f"{self._inbox}.{number}", headers=headers)
        except BusUnavailable:
            self._sent.pop(number, None)
            self._again.appendleft(sent)
            raise
        except (PayloadTooLarge, ValueError) as error:
            self._sent.pop(number, None)
            self._bytes -= sent.size
            self._lose(time.time(), "invalid")
            log.debug("an event is lost: %s", error)

    def _on_ack(self, message: Message) -> None:
        sent = self._sent.pop(int(message.subject.rpartition(".")[2]), None)
        if sent is None:
            return
        try:
            if message.status == "503":
                raise BusUnavailable("the stream LOGS does not exist")
            if b'"error"' in message.data:
                stored(sent.subject, message)
            self._failures = 0
            self._bytes -= sent.size
            self._published += 1
        except (PayloadTooLarge, InternalError) as error:
            self._bytes -= sent.size
            self._lose(time.time(), "refused")
            log.debug("an event is lost: %s", error)
        except OrchestraError:
            self._again.append(sent)
            if self._loop is not None:
                pause_s = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
                self._failures += 1
                self._loop.call_later(pause_s, self._wake.set)
            return
        if self._waiting or self._again or self._loss.count:
            self._wake.set()
        elif not self._sent:
            self._count_published()
            self._idle.set()

    def _count_published(self) -> None:
        PUBLISHED.inc(self._published)
        self._published = 0

    def _resend_late(self) -> None:
        """Send again what has no acknowledgement for too long; the oldest comes first."""
        late = time.monotonic() - ACK_TIMEOUT_S
        while self._sent:
            number, sent = next(iter(self._sent.items()))
            if sent.at >= late:
                return
            del self._sent[number]
            self._again.append(sent)

    def _on_reconnect(self) -> None:
        """Acknowledgements of the old connection are lost."""
        self._again.extend(self._sent.values())
        self._sent.clear()
        self._wake.set()

    def _tell_loss(self) -> None:
        loss, self._loss = self._loss, _Loss()
        identity = self.source.identity
        period = {"first_at": loss.first_at, "last_at": loss.last_at}
        event = LogEvent(
            id=f"{identity.id}/gap/{loss.first_at:.6f}",
            at=time.time(),
            name="log.gap",
            level=LogLevel.ERROR,
            process=identity.id,
            role=identity.role,
            host=identity.host,
            message=f"{loss.count} events of this process were lost: there was no room for them",
            data={"count": loss.count, "where": "process"} | period,
        )
        self._waiting.append((event, 0))
        self._idle.clear()
        self._wake.set()
