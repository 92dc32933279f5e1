"""The records of all kinds of question, in a bucket that every coordinator and gateway reads and adds to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import partial

from actors.bus.bus import Bus, Subscription
from actors.bus.key_value import Bucket, Entry
from orchestration.query_analysis.features import KINDS, Kind
from orchestration.trust.counts import Counts
from orchestration.trust.observation import Observation
from orchestration.trust.priors import Quality, default_accuracy
from orchestration.trust.records import KindRecord
from orchestration.trust.trust import Trust

log = logging.getLogger(__name__)

BUCKET = "tuning"
YIELD_EVERY = 8
"""Lessons between which others get their turn."""


class RecordStore:
    """`records` follows the bucket once `start` was called. `quality` is what settings say of models."""

    def __init__(self, bus: Bus, quality: Quality | None = None) -> None:
        self.records: dict[str, KindRecord] = {}
        self._quality = quality or {}
        self._counts: dict[str, dict[str, Counts]] = {}
        self._other_kinds: dict[str, dict[str, Counts]] = {}
        self._bucket = Bucket(bus, BUCKET)
        self._watching: Subscription | None = None

    async def start(self) -> None:
        """Raises `BusUnavailable` when the bucket is not there."""
        self._watching = await self._bucket.watch(self._changed)

    async def stop(self) -> None:
        if self._watching is not None:
            await self._watching.unsubscribe()

    def record(self, kind: Kind) -> KindRecord:
        return self.records.get(kind, KindRecord())

    def trust(self, kind: Kind, record: KindRecord | None = None) -> Trust:
        """How far models are trusted at a kind of question, by `record` or what is known of it here, and by
        what is known of other kinds."""
        record = self.record(kind) if record is None else record
        thought = partial(default_accuracy, kind=kind, quality=self._quality)
        other_kinds = self._counts_of_other_kinds(kind)
        return Trust(
            record.models,
            other_kinds,
            record.vote_vs_best,
            thought,
            pairs=record.pairs,
            judges=record.judges,
            kind=kind,
        )

    def _counts_of_other_kinds(self, kind: Kind) -> dict[str, Counts]:
        """Of each model, at all other kinds; summed once after each change."""
        if kind not in self._other_kinds:
            found: dict[str, tuple[float, float]] = {}
            for other, known in self._counts.items():
                for model, counts in known.items() if other != kind else ():
                    right, wrong = found.get(model, (0.0, 0.0))
                    found[model] = right + counts.right, wrong + counts.wrong
            self._other_kinds[kind] = {
                model: Counts(right=right, wrong=wrong) for model, (right, wrong) in found.items()
            }
        return self._other_kinds[kind]

    async def add(self, kind: Kind, observations: Iterable[Observation]) -> None:
        """Add `observations` to whatever the record is now: whoever writes in between is read again, so that
        no count is lost. Raises `BusUnavailable`, and what a bus raises."""
        observations = list(observations)

        async def edit(entry: Entry) -> bytes:
            record = _decoded(kind, entry.value)
            for number, observation in enumerate(observations, 1):
                record = record.after(observation, self.trust(kind, record))
                if number % YIELD_EVERY == 0:  # thousands may wait, of a millisecond each
                    await asyncio.sleep(0)
            return record.model_dump_json().encode()

        await self._bucket.update(kind, edit)

    async def forget(self, kind: Kind) -> None:
        """Begin the record anew. Raises as `add` does."""
        await self._bucket.put(kind, KindRecord().model_dump_json().encode())

    def _changed(self, value: bytes | None, subject: str) -> None:
        kind = subject.rpartition(".")[2]
        if kind in KINDS:
            self.records[kind] = _decoded(kind, value)
            self._counts[kind] = self.records[kind].counts()
            self._other_kinds.clear()


def _decoded(kind: str, value: bytes | None) -> KindRecord:
    if not value:
        return KindRecord()
    try:
        return KindRecord.read(value)
    except ValueError as error:
        log.warning("the record of kind %r cannot be read, and begins anew: %s", kind, error)
        return KindRecord()
