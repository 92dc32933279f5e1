"""Ships events from the stream LOGS to MongoDB: each at least once, and by its `_id` only once.

Any number of shippers share one durable consumer. An event is acknowledged after MongoDB has confirmed it. If
its shipper dies before that, it is delivered to another, which finds that MongoDB has it, or writes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from pydantic import ValidationError

from actors.bus.bus import Bus, Message
from actors.bus.jetstream import Delivery, Puller
from actors.bus.key_value import Bucket, Conflict, Lease
from actors.bus.provision import call_api, ensure_consumer
from actors.bus.subjects import LogSubject
from actors.jobs.dead_letters import dead_letter
from actors.logs.batch_writer import BatchWriter, PendingEvent
from actors.logs.gap_detector import GapDetector, LogGap
from actors.logs.metrics import CONNECTED, DEAD, GAP_EVENTS, LAG
from actors.logs.mongo_schema import document_of
from actors.logs.mongo_store import MongoStore, StoreUnavailable
from actors.logs.settings import MongoSettings
from actors.runtime.failures import UNEXPECTED_ERRORS, internal_error
from actors.streams.client import ID_HEADER
from actors.telemetry.event_log import EventLog, event_log
from orchestration.errors import OrchestraError
from orchestration.log_events import LogEvent, LogLevel

log = logging.getLogger(__name__)

HELD_BATCHES = 4
"""Batches that a shipper holds: one that is written, and those that come meanwhile."""
PROGRESS_S = 5.0
"""A third of the consumer's ack_wait: events that are held are not delivered to another shipper."""
WATCH_S = 2.0
"""Time between two looks at the consumer, for the lag."""
LEFT_BEHIND_S = 120.0
"""Minutes that another shipper has not computed for this long are computed by any."""
LEASES, LEASE = "leases", "log-gaps"
UNTOLD_S = 20.0
"""Time in which another shipper takes over the lease of one that died."""
CLOSE_S = 1.0
"""Time in which the batch at work is finished, and its roll-ups, when the process ends."""
BURY_AGAIN_S = 2.0
"""Pause before an event comes again that could not be moved to the dead letters."""
FAULT_PAUSE_S = 1.0
"""Pause after an unexpected exception."""


class Shipper:
    """Runs from `start` to `stop`. `name` is unique in the cluster."""

    def __init__(self, bus: Bus, settings: MongoSettings, name: str, source: EventLog = event_log) -> None:
        """Raises `InvalidRequest` for an address that cannot be used, and `ExtraMissing`."""
        self.bus = bus
        self.settings = settings
        self.name = name
        self.source = source
        self.store = MongoStore(settings)
        self.writer = BatchWriter(self.store, settings, self._settle, self._bury)
        self.gaps = GapDetector()
        self._held: dict[int, Delivery] = {}
        """What was delivered and is not settled yet, by its place in the stream."""
        self._queue: deque[PendingEvent] = deque()
        self._news = asyncio.Event()
        self._minutes: set[datetime] = set()
        """Minutes that are marked in the store for their roll-ups."""
        self._written: set[datetime] = set()
        """Minutes of the events that are being written."""
        self._stopping = False
        self._prepared = False
        self._stream = ""
        """The stream and when it was made: another one of its name has other places."""
        self._consumer = ""
        """When the consumer was made: another one counts its deliveries from 1."""
        self._left_behind = 0
        """The last place that was delivered before this shipper started, and is discarded."""
        self._lease = Lease(Bucket(bus, LEASES), LEASE)
        self._watches = False
        """Whether this shipper tells gaps; one of all does."""
        self._untold: deque[tuple[float, LogGap]] = deque(maxlen=100)
        """Gaps that another shipper should have told, unless it died."""
        self._puller = Puller(bus, LogSubject.STREAM, LogSubject.CONSUMER, self._on_delivery)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to pull; MongoDB need not be there yet."""
        await ensure_consumer(self.bus, LogSubject.STREAM, LogSubject.CONSUMER, LogSubject.ALL)
        CONNECTED.set(0)
        await self._renew_watch()
        info, stream = await self._info(), await self._stream_info()
        self._consumer = info["created"]
        self._stream = f"{LogSubject.STREAM}/{stream['created']}"
        if not info.get("num_waiting"):  # else other shippers have what was delivered
            self._left_behind = min(info["delivered"]["stream_seq"], stream["state"]["first_seq"] - 1)
        self._note_state(info, first=True)
        await self._puller.start()
        loop = asyncio.get_running_loop()
        parts = (self._ship, self._keep, self._watch, self._roll_up)
        self._tasks = [loop.create_task(self._lasting(part)) for part in parts]
        self._pull()

    async def stop(self) -> None:
        """Finish the batch at work if MongoDB takes it within `CLOSE_S`; what is not written goes back to the
        stream, and minutes without roll-ups stay marked for another shipper."""
        self._stopping = True
        await self._puller.stop()
        self._news.set()
        ship, *others = self._tasks
        for task in others:
            task.cancel()
        until = time.monotonic() + (0 if self.writer.problem else CLOSE_S)
        await asyncio.wait({ship}, timeout=until - time.monotonic())
        ship.cancel()
        await asyncio.wait({ship, *others})
        for delivery in self._held.values():
            with suppress(OrchestraError):
                delivery.settle(b"-NAK")
        with suppress(OrchestraError, TimeoutError):
            async with asyncio.timeout(until - time.monotonic()):
                await self._compute_rollups()
        with suppress(OrchestraError):
            await self._lease.release()
        await self.store.close()

    def _on_delivery(self, delivery: Delivery) -> None:
        place = delivery.sequence
        gap = self.gaps.seen(delivery.number, place)
        if gap is not None:
            self._tell(gap)
        if place in self._held:  # the report of progress came too late: settle the newer delivery
            self._held[place] = delivery
            return
        self._held[place] = delivery
        try:
            event = LogEvent.model_validate_json(delivery.message.data)
        except ValidationError:
            event = LogEvent(id=f"unreadable/{place}", at=time.time(), name="error.unreadable")
        document = document_of(event)
        pending = PendingEvent(delivery, document)
        if event.name == "error.unreadable":
            pending.reason = "the message is no event"
        self._queue.append(pending)
        self._news.set()

    def _pull(self) -> None:
        if not self._stopping:
            self._puller.request(max(0, HELD_BATCHES * self.settings.batch - len(self._held)))

    async def _lasting(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part of the work. After a defect it begins again: else what is held would never be written,
        nor delivered to another shipper."""
        while True:
            try:
                return await part()
            except UNEXPECTED_ERRORS as error:
                log.warning("the log shipper goes on after %s", internal_error("shipping", error, "shipper"))
                await asyncio.sleep(FAULT_PAUSE_S)

    async def _ship(self) -> None:
        """Write batch after batch, once the store is prepared."""
        if not self._prepared:
            await self._prepare()
            self._prepared = True
        while True:
            if not self._queue:
                if self._stopping:
                    return
                self._news.clear()
                await self._news.wait()
                if not self._stopping:
                    await asyncio.sleep(self.settings.linger_s)
                continue
            batch = list(islice(self._queue, self.settings.batch))
            await self._write(batch)
            for _ in batch:
                self._queue.popleft()
            self._pull()

    async def _prepare(self) -> None:
        while True:
            try:
                await self.store.prepare()
                await self._tell_left_behind()
                self.writer.works()
                return
            except StoreUnavailable as error:
                await self.writer.pause(error.message)

    async def _tell_left_behind(self) -> None:
        """Tell what was delivered to a shipper that died, and was discarded before another started."""
        place = await self.store.progress(self._stream)
        if place is not None and place < self._left_behind:
            self._tell(LogGap(place + 1, self._left_behind - place))

    async def _write(self, batch: list[PendingEvent]) -> None:
        unreadable = [each for each in batch if each.reason]
        for each in unreadable:
            await self._bury(each)
        good = [each for each in batch if not each.reason]
        self._written = {_minute(each.document) for each in good}
        try:
            await self._mark(self._written)
            await self.writer.write(good)
        finally:
            self._written = set()

    async def _mark(self, minutes: set[datetime]) -> None:
        """Note the minutes of the batch before it is written: a shipper that dies then leaves the note."""
        new = minutes - self._minutes
        while new:
            try:
                await self.store.mark(new, self.name)
                self._minutes |= new
                return
            except StoreUnavailable as error:
                await self.writer.pause(error.message)

    def _settle(self, events: Sequence[PendingEvent]) -> None:
        """Acknowledge events that are written. If that is lost, an event comes again, and is known."""
        for event in events:
            delivery = self._held.pop(event.delivery.sequence, event.delivery)
            try:
                delivery.settle(b"+ACK")
            except OrchestraError as error:
                log.debug("an event will be delivered again: %s", error)

    async def _bury(self, event: PendingEvent) -> None:
        """Move an event to the dead letters. If that fails it comes again."""
        message = event.delivery.message
        event_id = str(event.document["_id"])
        named = Message(message.subject, message.reply, message.data, {ID_HEADER: event_id})
        try:
            await dead_letter(
                self.bus, named, reason=event.reason, attempts=max(1, event.refusals), error=None
            )
        except OrchestraError as error:
            log.warning("event %s could not be moved to the dead letters: %s", event_id, error)
            delivery = self._held.pop(event.delivery.sequence, event.delivery)
            with suppress(OrchestraError):  # else it comes again without a report of progress
                await delivery.nak(BURY_AGAIN_S)
            return
        DEAD.inc()
        self._settle([event])

    async def _keep(self) -> None:
        """Report progress, so that what waits for MongoDB is not delivered elsewhere."""
        while True:
            await asyncio.sleep(PROGRESS_S)
            for delivery in list(self._held.values()):
                with suppress(OrchestraError):
                    await delivery.in_progress()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self._renew_watch()
                info = await self._info()
                if info["created"] != self._consumer:
                    self._stream = f"{LogSubject.STREAM}/{(await self._stream_info())['created']}"
                    self._consumer, self.gaps = info["created"], GapDetector()
                self._note_state(info)
                if self._prepared and self._watches and not self.writer.problem:
                    await self.store.note_progress(self._stream, info["ack_floor"]["stream_seq"])
                if self._puller.missing:
                    await ensure_consumer(self.bus, LogSubject.STREAM, LogSubject.CONSUMER, LogSubject.ALL)
            except OrchestraError as error:
                log.debug("cannot read the state of the log's consumer: %s", error)
            self._pull()

    async def _renew_watch(self) -> None:
        """Hold the lease on telling gaps, or find that another shipper does."""
        try:
            await self._lease.hold(self.name.encode())
            self._watches = True
        except Conflict:
            self._watches = False
        recent = time.monotonic() - UNTOLD_S
        while self._untold and (self._watches or self._untold[0][0] < recent):
            found_at, gap = self._untold.popleft()
            if found_at >= recent:
                self._tell(gap)

    async def _info(self) -> dict[str, Any]:
        return await call_api(self.bus, f"CONSUMER.INFO.{LogSubject.STREAM}.{LogSubject.CONSUMER}")

    async def _stream_info(self) -> dict[str, Any]:
        return await call_api(self.bus, f"STREAM.INFO.{LogSubject.STREAM}")

    def _note_state(self, info: dict[str, Any], *, first: bool = False) -> None:
        LAG.set(info["num_pending"] + info["num_ack_pending"])
        delivered = info["delivered"]
        if not delivered["consumer_seq"]:
            return  # nothing was ever shipped: what was discarded before belongs to no shipper
        if first or not self._held:
            gap = self.gaps.state(delivered["consumer_seq"], delivered["stream_seq"])
            if gap is not None:
                self._tell(gap)

    def _tell(self, gap: LogGap) -> None:
        if not self._watches:
            self._untold.append((time.monotonic(), gap))
            return
        GAP_EVENTS.inc(gap.count)
        log.error("%d events of the log were discarded before they were shipped", gap.count)
        self.source.record(
            "log.gap",
            event_id=f"log.gap/{LogSubject.STREAM}/{gap.first}/{gap.count}",
            level=LogLevel.ERROR,
            message=f"{gap.count} events were discarded from the stream before they were shipped",
            data={
                "count": gap.count,
                "first_sequence": gap.first,
                "last_sequence": gap.first + gap.count - 1,
                "where": "stream",
            },
        )

    async def _roll_up(self) -> None:
        while True:
            await asyncio.sleep(self.settings.rollup_s)
            try:
                await self._compute_rollups()
            except OrchestraError as error:
                log.debug("roll-ups wait: %s", error)

    async def _compute_rollups(self) -> None:
        """Compute the roll-ups of minutes that have new events, from all their events. A minute of which
        events are being written stays marked; one of which events come later is marked again."""
        others_before = datetime.now(UTC) - timedelta(seconds=LEFT_BEHIND_S)
        marked = await self.store.marked(self.name, others_before)
        self._minutes &= self._written.union(marked)  # another shipper may have computed the others
        for minute in marked:
            more_come = minute in self._written
            if not more_come:
                self._minutes.discard(minute)
            await self.store.roll_up(minute, self.name, others_before, more_come=more_come)


def _minute(document: dict[str, Any]) -> datetime:
    at: datetime = document["at"]
    return at.replace(second=0, microsecond=0)
