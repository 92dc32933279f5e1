"""The records of all kinds of question, in a bucket that every coordinator and gateway reads and adds to."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable

from pydantic import ValidationError

from actors.runtime.bus import Bus, Subscription
from actors.runtime.kv import Bucket, Conflict
from orchestration.errors import BusUnavailable
from orchestration.tuning.features import KINDS, Kind
from orchestration.tuning.records import Judged, Record

log = logging.getLogger(__name__)

BUCKET = "tuning"
TRIES = 20
PAUSE_S = 0.005


class Shelf:
    """`records` follows the bucket once `start` was called."""

    def __init__(self, bus: Bus) -> None:
        self.records: dict[str, Record] = {}
        self._bucket = Bucket(bus, BUCKET)
        self._watching: Subscription | None = None

    async def start(self) -> None:
        """Raises `BusUnavailable` when the bucket is not there."""
        self._watching = await self._bucket.watch(self._changed)

    async def stop(self) -> None:
        if self._watching is not None:
            await self._watching.unsubscribe()

    def record(self, kind: Kind) -> Record:
        return self.records.get(kind, Record())

    async def add(self, kind: Kind, lessons: Iterable[Judged]) -> None:
        """Add `lessons` to whatever the record is now: whoever writes in between is read again, so that no
        count is lost. Raises `BusUnavailable`, and what a bus raises."""
        lessons = list(lessons)
        for attempt in range(TRIES):
            entry = await self._bucket.latest(kind, sure=True)
            record = _decoded(kind, entry.value)
            for lesson in lessons:
                record = record.after(lesson)
            try:
                await self._bucket.put(kind, record.model_dump_json().encode(), last=entry.revision)
            except Conflict:
                await asyncio.sleep(PAUSE_S * random.uniform(0, min(64, 2**attempt)))
            else:
                return
        raise BusUnavailable(f"the record of kind {kind!r} changes faster than it can be written")

    async def forget(self, kind: Kind) -> None:
        """Begin the record anew. Raises as `add` does."""
        await self._bucket.put(kind, Record().model_dump_json().encode())

    def _changed(self, value: bytes | None, subject: str) -> None:
        kind = subject.rpartition(".")[2]
        if kind in KINDS:
            self.records[kind] = _decoded(kind, value)


def _decoded(kind: str, value: bytes | None) -> Record:
    if not value:
        return Record()
    try:
        return Record.model_validate_json(value)
    except ValidationError as error:
        log.warning("the record of kind %r cannot be read, and begins anew: %s", kind, error)
        return Record()
