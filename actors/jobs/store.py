"""The store of jobs: two buckets, `jobs` for records and `results` for the results of their retries."""

from __future__ import annotations

import time
from collections.abc import Callable
from secrets import token_hex

from actors.bus.bus import Bus
from actors.bus.key_value import Bucket, Conflict, Entry
from actors.jobs.records import JobRecord, JobResult, result_key
from orchestration.errors import BusUnavailable, PayloadTooLarge
from orchestration.messages import Wire

JOBS = "jobs"
RESULTS = "results"
PART_BYTES = 512 * 1024
"""Maximum bytes of a result under one key; a larger result is split. A NATS message has at most 1 MB by
default."""
MAX_RESULT_BYTES = 64 * 2**20
"""Maximum bytes of a result as JSON, so that a few results cannot fill the bucket."""


class ResultParts(Wire):
    """The value under a result's key when the result is split: its parts are under `<prefix>.<number>`."""

    prefix: str
    parts: int


class JobStore:
    """Reads and writes records and results of jobs.

    Every write is conditional: of several writers one wins, and the others learn what it wrote. Reads ask the
    leading server, so that a job which was accepted is always found.

    Every method raises `BusUnavailable` when NATS is away, and `QueueFull` when a bucket is full.
    """

    def __init__(self, bus: Bus, *, max_result_bytes: int = MAX_RESULT_BYTES) -> None:
        self.max_result_bytes = max_result_bytes
        self.jobs = Bucket(bus, JOBS)
        self.results = Bucket(bus, RESULTS)
        self.jobs_stream = f"KV_{JOBS}"

    async def create(self, record: JobRecord) -> JobRecord | None:
        """Write a new record. Returns the record that was there before, or None when this one was written."""
        present = await _create(self.jobs, record.id, record.model_dump_json(exclude_defaults=True).encode())
        return None if present is None else JobRecord.model_validate_json(present)

    async def withdraw(self, record: JobRecord) -> None:
        """Delete a record, unless it was changed since `create`."""
        present = await self.jobs.latest(record.id, sure=True)
        if present.value is not None and JobRecord.model_validate_json(present.value) == record:
            try:
                await self.jobs.delete_at(record.id, present.revision)
            except Conflict:
                return

    async def record(self, job_id: str) -> JobRecord | None:
        entry = await self.jobs.get(job_id, sure=True)
        return None if entry is None or entry.value is None else JobRecord.model_validate_json(entry.value)

    async def update(self, job_id: str, change: Callable[[JobRecord], JobRecord | None]) -> JobRecord | None:
        """Write what `change` returns for the present record, with the time of the change.

        `change` may be called several times; when it returns None nothing is written. Returns the record as
        it is afterwards, None when there is none.
        """
        record: JobRecord | None = None

        def edit(entry: Entry) -> bytes | None:
            nonlocal record
            record = None if entry.value is None else JobRecord.model_validate_json(entry.value)
            changed = None if record is None else change(record)
            if changed is None:
                return None
            record = changed.model_copy(update={"changed_at": time.time()})
            return record.model_dump_json(exclude_defaults=True).encode()

        await self.jobs.update(job_id, edit)
        return record

    async def result(self, job_id: str, retry_number: int) -> JobResult | None:
        entry = await self.results.get(result_key(job_id, retry_number), sure=True)
        return None if entry is None or entry.value is None else await self._read(entry.value)

    async def create_result(self, result: JobResult) -> JobResult:
        """Write the result, unless its retry has one. Returns the one that is stored.

        Raises `PayloadTooLarge` beyond `max_result_bytes`.
        """
        key = result_key(result.id, result.retry_number)
        value = result.model_dump_json(exclude_defaults=True).encode()
        present = await _create(self.results, key, await self._split(key, value))
        return result if present is None else await self._read(present)

    async def _split(self, key: str, value: bytes) -> bytes:
        """The value to write under `key`. Writes the parts of a large value first, under their own keys."""
        size = len(value)
        if size <= PART_BYTES:
            return value
        if size > self.max_result_bytes:
            limit = self.max_result_bytes
            raise PayloadTooLarge(f"the answer has {size} bytes; the limit for a job is {limit}")
        prefix = f"{key}.{token_hex(4)}"
        starts = range(0, size, PART_BYTES)
        for number, start in enumerate(starts):
            await self.results.put(f"{prefix}.{number}", value[start : start + PART_BYTES])
        return ResultParts(prefix=prefix, parts=len(starts)).model_dump_json().encode()

    async def _read(self, value: bytes) -> JobResult:
        if not value.startswith(b'{"prefix":'):
            return JobResult.model_validate_json(value)
        index = ResultParts.model_validate_json(value)
        parts: list[bytes] = []
        for number in range(index.parts):
            entry = await self.results.get(f"{index.prefix}.{number}", sure=True)
            if entry is None or entry.value is None:
                raise BusUnavailable(f"part {number} of the result {index.prefix} is missing")
            parts.append(entry.value)
        return JobResult.model_validate_json(b"".join(parts))


async def _create(bucket: Bucket, key: str, value: bytes) -> bytes | None:
    """Write a key that has no value. Returns the value that was there, None when this one was written."""
    present: bytes | None = None

    def edit(entry: Entry) -> bytes | None:
        nonlocal present
        present = entry.value
        return value if present is None else None

    await bucket.update(key, edit, expected=Entry(key, None))
    return present
