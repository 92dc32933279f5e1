"""Writes batches of events to the store until each is written, or known to be refused for good.

A write that fails is repeated with growing pauses. What the store refuses while it takes other documents is a
dead letter after some attempts; a batch that cannot be encoded is halved until its document is found. What
refuses everything (the store is away, full, not permitted) is waited for, however long that takes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from actors.bus.jetstream import Delivery
from actors.logs.metrics import CONNECTED, REPEATED, RETRIES, SHIPPED
from actors.logs.mongo_store import DocumentRefused, MongoStore, StoreUnavailable, Written
from actors.logs.settings import MongoSettings

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
TELL_AGAIN = 20
"""A failure that lasts is logged again after this many attempts."""


@dataclass(slots=True, eq=False)
class PendingEvent:
    """One event on its way to the store."""

    delivery: Delivery
    document: dict[str, Any]
    refusals: int = 0
    reason: str = ""
    others_pass: bool = False
    """Whether the store took another write when, or after, it refused this one."""


Settle = Callable[[Sequence[PendingEvent]], None]
Bury = Callable[[PendingEvent], Awaitable[None]]


class BatchWriter:
    """`settle` is called with events that are written, `bury` with those that never will be."""

    def __init__(self, store: MongoStore, settings: MongoSettings, settle: Settle, bury: Bury) -> None:
        self.store = store
        self.settings = settings
        self.settle = settle
        self.bury = bury
        self.problem = ""
        """Why the last write failed; '' if it did not."""
        self._failures = 0

    async def write(self, events: Sequence[PendingEvent]) -> None:
        """Returns once each event is settled or buried. Cancelling leaves the rest unsettled."""
        left = list(events)
        while left:
            try:
                outcome = await self.store.insert([each.document for each in left])
            except DocumentRefused as error:
                await self._halve(left, error)
                return
            except StoreUnavailable as error:
                await self.pause(error.message)
                continue
            left = await self._after(left, outcome)

    async def _after(self, events: list[PendingEvent], outcome: Written) -> list[PendingEvent]:
        """Settle what was written. Returns the events to try again, after a pause if there are any."""
        written = [each for place, each in enumerate(events) if place not in outcome.refused]
        SHIPPED.inc(outcome.new)
        REPEATED.inc(outcome.known)
        if written:
            self.works()
            self.settle(written)
        left: list[PendingEvent] = []
        for place, reason in outcome.refused.items():
            each = events[place]
            each.refusals, each.reason = each.refusals + 1, reason
            each.others_pass = each.others_pass or bool(written)
            left.append(each)
        lasting = [each for each in left if each.refusals >= self.settings.attempts]
        for each in [each for each in lasting if each.others_pass]:
            await self._give_up(each)
            left.remove(each)
        if left:
            await self.pause(left[0].reason)
        if lasting and await self._takes_others():
            for each in lasting:
                each.others_pass = True
        return left

    async def _halve(self, events: list[PendingEvent], error: DocumentRefused) -> None:
        """Find the document that cannot be encoded, and write the others."""
        if len(events) == 1:
            events[0].reason = error.message
            await self._give_up(events[0])
            return
        middle = len(events) // 2
        await self.write(events[:middle])
        await self.write(events[middle:])

    async def _takes_others(self) -> bool:
        """Whether the store takes writes at all, so that a refusal is about the document."""
        try:
            await self.store.probe()
        except StoreUnavailable:
            return False
        return True

    async def _give_up(self, event: PendingEvent) -> None:
        log.warning("event %s is a dead letter: %s", event.document["_id"], event.reason)
        await self.bury(event)

    async def pause(self, reason: str) -> None:
        """Wait after a failure, the longer the more there were."""
        RETRIES.inc()
        CONNECTED.set(0)
        if self._failures % TELL_AGAIN == 0 or reason != self.problem:
            log.warning("events wait in the stream LOGS: %s", reason)
        self.problem = reason
        pause_s = min(FIRST_PAUSE_S * 2 ** min(self._failures, 16), self.settings.max_backoff_s)
        self._failures += 1
        await asyncio.sleep(pause_s * random.uniform(0.5, 1))

    def works(self) -> None:
        """The store has taken a write."""
        if self.problem:
            log.warning("events are written to MongoDB again")
        self._failures, self.problem = 0, ""
        CONNECTED.set(1)
