"""The records of all kinds of question, in a bucket that all coordinators and gateways read and update."""

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
"""Observations after which other tasks run."""


class RecordStore:
    """Reads and updates the records. After `start`, `records` follows the bucket. `quality` holds the shares
    of right answers that the settings give to models."""

    def __init__(self, bus: Bus, quality: Quality | None = None) -> None:
        self.records: dict[str, KindRecord] = {}
        self._quality = quality or {}
        self._counts: dict[str, dict[str, Counts]] = {}
        self._other_kinds: dict[str, dict[str, Counts]] = {}
        self._bucket = Bucket(bus, BUCKET)
        self._watching: Subscription | None = None

    def use_quality(self, quality: Quality) -> None:
        """Use other shares of right answers."""
        self._quality = quality

    async def start(self) -> None:
        """Raises `BusUnavailable` if the bucket does not exist."""
        self._watching = await self._bucket.watch(self._changed)

    async def stop(self) -> None:
        if self._watching is not None:
            await self._watching.unsubscribe()

    def record(self, kind: Kind) -> KindRecord:
        return self.records.get(kind, KindRecord())

    def trust(self, kind: Kind, record: KindRecord | None = None) -> Trust:
        """Return the trust in models at a kind of question, from `record` (by default the current one) and
        the records of other kinds."""
        record = self.record(kind) if record is None else record
        prior = partial(default_accuracy, kind=kind, quality=self._quality)
        other_kinds = self._counts_of_other_kinds(kind)
        return Trust(
            record.models,
            other_kinds,
            record.vote_vs_best,
            prior,
            pairs=record.pairs,
            judges=record.judges,
            kind=kind,
        )

    def _counts_of_other_kinds(self, kind: Kind) -> dict[str, Counts]:
        """Return the counts of each model at all other kinds; they are summed once after each change."""
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
        """Add `observations` to the current record. If another process writes at the same time the record is
        read again, so no observation is lost. Raises `BusUnavailable`, and other errors of the bus."""
        observations = list(observations)

        async def edit(entry: Entry) -> bytes:
            record = _decoded(kind, entry.value)
            for number, observation in enumerate(observations, 1):
                record = record.after(observation, self.trust(kind, record))
                if number % YIELD_EVERY == 0:  # each takes a millisecond, and thousands may wait
                    await asyncio.sleep(0)
            return record.model_dump_json().encode()

        await self._bucket.update(kind, edit)

    async def reset(self, kind: Kind) -> None:
        """Reset the record. Raises as `add` does."""
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
        log.warning("the record of kind %r is unreadable and was reset: %s", kind, error)
        return KindRecord()
