"""Reads the central log from the stream `LOGS`: pages, one event, or events as they come."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from actors.bus.bus import Bus, Message
from actors.bus.direct_get import MAX_BATCH, DirectMessage, StoredPage, TooManyResults, get_batch
from actors.bus.provision import call_api
from actors.bus.subjects import LogSubject
from actors.logs.filter import LogFilter
from orchestration.errors import InvalidRequest, OrchestraError
from orchestration.log_events import LogEvent, LogLevel

log = logging.getLogger(__name__)

STREAM = LogSubject.STREAM
MAX_LIMIT = 1_000
"""Maximum events of a page."""
MAX_WIDTH = 40_000
"""Maximum places that one request searches: the server reads them one by one, about 8 µs each, and answers
nothing else to this connection meanwhile."""
MIN_SHARE = 0.02
"""The lowest share of events with a wanted subject that is expected to be wanted: it limits what is read."""
SEARCH_S = 5.0
"""A page ends after this time of search, with a cursor from which the next page goes on."""
LATE_S = 300.0
"""An event may be stored this long after it happened; later ones are missed by `until`."""
POLL_S = 0.5
"""Longest pause between two looks for new events."""
MAX_SEEN = 10_000
"""Maximum ids that a follower remembers."""
SETTLE_S = 0.03
"""Time that the stream has to store an event that was seen on its way."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event and its place in the stream, by which it can be fetched and pages go on."""

    sequence: int
    event: LogEvent


@dataclass(frozen=True, slots=True)
class LogPage:
    """Events, the newest first. `before` is the cursor of the next page; None: there is none."""

    events: list[StoredEvent]
    before: int | None


class LogReader:
    """Reads for as long as `bus` is connected."""

    def __init__(self, bus: Bus, *, own_connection: bool = True) -> None:
        """With `own_connection`, pages are read over a connection of their own: the server answers nothing
        else to a connection while it searches for it."""
        self.bus = bus
        self.own_connection = own_connection

    async def page(self, wanted: LogFilter, *, limit: int = 100, before: int | None = None) -> LogPage:
        """The newest events that match, or those before the cursor `before`. After `SEARCH_S` a page may have
        fewer than `limit`, with a cursor. Raises `InvalidRequest`, `BusUnavailable`."""
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidRequest(f"limit: {limit} is not between 1 and {MAX_LIMIT}", param="limit")
        if not self.own_connection:
            return await self._page(wanted, limit, before)
        own = await Bus.connect(self.bus.settings, name=f"{self.bus.name}-logs")
        try:
            return await LogReader(own, own_connection=False)._page(wanted, limit, before)
        finally:
            await own.close()

    async def _page(self, wanted: LogFilter, limit: int, before: int | None) -> LogPage:
        first, last = await self._bounds(wanted)
        stop = last + 1 if before is None else min(before, last + 1)
        if stop <= first:
            return LogPage([], None)
        if wanted.is_story:
            try:
                return await self._story_page(wanted, limit, first, stop)
            except TooManyResults:
                log.debug("the events of %s are too many for the index", wanted)
        return await _Search(self, wanted, first, last).page(limit, stop)

    async def story(self, wanted: LogFilter) -> list[StoredEvent]:
        """All events of a run or trace in the order in which they happened, up to `MAX_LIMIT`, the newest."""
        page = await self.page(wanted, limit=MAX_LIMIT)
        return sorted(page.events, key=lambda stored: (stored.event.at, stored.sequence))

    async def one(self, sequence: int) -> StoredEvent | None:
        """The event at that place; None when it is not there any more."""
        page = await get_batch(self.bus, STREAM, {"seq": max(1, sequence), "batch": 1})
        found = [message for message in page.messages if message.sequence == sequence]
        return next(iter(decoded(found)), None)

    async def follow(self, wanted: LogFilter, *, after: int | None = None) -> AsyncIterator[StoredEvent]:
        """The events after the cursor `after`, or from now on, as they are stored: each once and in order,
        also over a lost connection. What the stream has discarded meanwhile is told as a `log.gap`."""
        filters = wanted.subjects()
        subject = filters[0] if len(filters) == 1 else LogSubject.ALL
        news, seen = asyncio.Event(), _Seen()

        def on_news(_: Message) -> None:
            news.set()

        subscription = await self.bus.subscribe(subject, on_news)
        try:
            state = await self._state()
            at = (state["last_seq"] if after is None else after) + 1
            while True:
                news.clear()
                async for stored, next_at in self._from(at, subject):
                    at = next_at
                    if stored is not None and wanted.matches(stored.event) and seen.add(stored.event.id):
                        yield stored
                try:
                    async with asyncio.timeout(POLL_S):
                        await news.wait()
                    await asyncio.sleep(SETTLE_S)
                except TimeoutError:
                    pass
        finally:
            await subscription.unsubscribe()

    async def _from(self, at: int, subject: str) -> AsyncIterator[tuple[StoredEvent | None, int]]:
        """The events from `at` on that are stored now, each with the place at which to go on."""
        more = 1
        try:
            first = (await self._state())["first_seq"]
            if first > at:
                yield _gap(at, first), first
                at = first
            while more:
                request: dict[str, Any] = {"seq": at, "batch": MAX_BATCH}
                page = await get_batch(self.bus, STREAM, _filtered(request, subject))
                more = page.more if page.messages else 0
                for message in page.messages:
                    at = message.sequence + 1
                    yield next(iter(decoded([message])), None), at
        except OrchestraError as error:
            log.debug("following the log waits for NATS: %s", error)

    async def _story_page(self, wanted: LogFilter, limit: int, first: int, stop: int) -> LogPage:
        """The events of one run or trace, by the server's index of subjects."""
        request = {"multi_last": wanted.subjects(), "batch": MAX_BATCH, "up_to_seq": stop - 1}
        page = await get_batch(self.bus, STREAM, request)
        if page.more:
            raise TooManyResults("more events than a request returns")
        found = [each for each in unique(decoded(page.messages)) if wanted.matches(each.event)]
        newest = [each for each in reversed(found) if each.sequence >= first][:limit]
        return LogPage(newest, newest[-1].sequence if len(found) > len(newest) and newest else None)

    async def _bounds(self, wanted: LogFilter) -> tuple[int, int]:
        """The first and the last place in the stream that can have what is wanted."""
        state = await self._state()
        first, last = max(1, state["first_seq"]), state["last_seq"]
        if wanted.since:
            first = max(first, await self._at_time(wanted.since) or last + 1)
        if wanted.until and wanted.until + LATE_S < time.time():
            last = await self._last_until(wanted.until + LATE_S, first, last)
        return first, last

    async def _last_until(self, at: float, first: int, last: int) -> int:
        """The place before the first event that happened after `at`. By the events' own times, since a stream
        that was carried into a cluster has stored all of them again. They are nearly in order."""
        while first <= last:
            middle = (first + last) // 2
            page = await get_batch(self.bus, STREAM, {"seq": middle, "batch": 1})
            found = decoded(page.messages)
            if found and found[0].event.at <= at:
                first = max(middle, found[0].sequence) + 1
            else:
                last = middle - 1
        return last

    async def _at_time(self, at: float) -> int | None:
        """The place of the first event stored at that time or later; None: there is none."""
        when = datetime.fromtimestamp(max(0.0, min(at, 4e9)), UTC).isoformat().replace("+00:00", "Z")
        page = await get_batch(self.bus, STREAM, {"start_time": when, "batch": 1})
        return page.messages[0].sequence if page.messages else None

    async def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = (await call_api(self.bus, f"STREAM.INFO.{STREAM}"))["state"]
        return state


class _Search:
    """Finds the newest matching events before a place.

    It looks from the end, in windows as wide as the density of what was found makes likely. A read from the
    window's begin tells also how many events match from there on, so that nothing is counted beforehand.
    """

    def __init__(self, reader: LogReader, wanted: LogFilter, first: int, last: int) -> None:
        self.bus = reader.bus
        self.wanted = wanted
        self.subjects: list[str] = wanted.subjects() or [""]
        self.first = first
        self.last = last

    async def page(self, limit: int, stop: int) -> LogPage:
        found: list[StoredEvent] = []
        gives_up_at = time.monotonic() + SEARCH_S
        high, width, seen = stop, 2 * limit, 0
        above = at_stop = await self._counts(stop)
        while high > self.first and len(found) < limit and time.monotonic() < gives_up_at:
            low = max(self.first, high - width)
            share = max(MIN_SHARE, len(found) / seen) if seen else 1.0
            wanted = round((limit - len(found)) / share)
            density = (sum(above) - sum(at_stop)) / (stop - high) if stop > high else 1.0
            likely = min(high - low, round(1.25 * density * (high - low)) + 8, 4 * wanted)
            tops = await asyncio.gather(*(self._read(each, low, likely) for each in self.subjects))
            counts = [len(top.messages) + top.more for top in tops]
            inside = sum(counts) - sum(above)
            if inside > 4 * wanted and high - low > 1:
                width = max(1, (high - low) * 2 * wanted // inside)
                continue
            events = await self._events(
                tops, [now - then for now, then in zip(counts, above, strict=True)], high
            )
            seen += inside
            found += [each for each in reversed(events) if self.wanted.matches(each.event)]
            above, high = counts, low
            density = (sum(above) - sum(at_stop)) / (stop - high)
            likely_width = round(1.3 * (limit - len(found)) / density) if density else MAX_WIDTH
            width = min(MAX_WIDTH, 8 * width, max(limit, likely_width))
        kept = unique(found)[:limit]
        if len(found) > len(kept) and kept:
            return LogPage(kept, kept[-1].sequence)
        return LogPage(kept, high if high > self.first else None)

    async def _counts(self, stop: int) -> list[int]:
        """The number of events from `stop` on that match each of the subjects."""
        if stop > self.last:
            return [0 for _ in self.subjects]
        tops = await asyncio.gather(*(self._read(subject, stop, 1) for subject in self.subjects))
        return [len(top.messages) + top.more for top in tops]

    async def _read(self, subject: str, at: int, count: int) -> StoredPage:
        """The first events from a place on."""
        batch = min(MAX_BATCH, max(1, count))
        return await get_batch(self.bus, STREAM, _filtered({"seq": at, "batch": batch}, subject))

    async def _events(self, tops: list[StoredPage], counts: list[int], high: int) -> list[StoredEvent]:
        """The events below `high`, in order: those of `tops`, the first for each subject, and the others up
        to the subject's count."""
        found: list[DirectMessage] = []
        for subject, top, count in zip(self.subjects, tops, counts, strict=True):
            page, number = top, len(top.messages)
            found += top.messages
            while page.more and page.messages and number < count:
                page = await self._read(subject, page.messages[-1].sequence + 1, count - number)
                number += len(page.messages)
                found += page.messages
        below = [message for message in found if message.sequence < high]
        return decoded(sorted(below, key=lambda message: message.sequence))


class _Seen:
    """The ids of the last events: a fact that was stored twice is told once."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}

    def add(self, event_id: str) -> bool:
        """Whether the id is new."""
        if event_id in self._ids:
            return False
        self._ids[event_id] = None
        if len(self._ids) > MAX_SEEN:
            del self._ids[next(iter(self._ids))]
        return True


def decoded(messages: list[DirectMessage]) -> list[StoredEvent]:
    """The events of messages; what is no event is left out."""
    events: list[StoredEvent] = []
    for message in messages:
        try:
            events.append(StoredEvent(message.sequence, LogEvent.model_validate_json(message.data)))
        except ValidationError as error:
            log.debug("message %d of the log is no event: %s", message.sequence, error)
    return events


def unique(events: list[StoredEvent]) -> list[StoredEvent]:
    """The events without repetitions of a fact."""
    seen = _Seen()
    return [each for each in events if seen.add(each.event.id)]


def _filtered(request: dict[str, Any], subject: str) -> dict[str, Any]:
    return request | {"next_by_subj": subject} if subject and subject != LogSubject.ALL else request


def _gap(at: int, first: int) -> StoredEvent:
    count = first - at
    event = LogEvent(
        id=f"log.gap/{at}",
        at=time.time(),
        name="log.gap",
        level=LogLevel.WARNING,
        message=f"{count} events were discarded from the stream before they were read",
        data={"count": count, "where": "reader"},
    )
    return StoredEvent(first - 1, event)
