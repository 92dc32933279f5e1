"""The books of jobs, in two buckets: `jobs` has their records, `results` how each round of them ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from secrets import token_hex

from actors.bus.bus import Bus
from actors.bus.key_value import Bucket, Conflict
from actors.jobs.records import JobRecord, JobResult, result_key
from orchestration.errors import BusUnavailable, PayloadTooLarge
from orchestration.messages import Wire

JOBS = "jobs"
RESULTS = "results"
TRIES = 8
PAUSE_S = 0.02
"""Between two of them: in a cluster the write that won may still be on its way to the other servers."""
PART_BYTES = 512 * 1024
"""Of a result under one key; a larger one has several. A message of a NATS server with its usual settings may
have 1 MB."""
MAX_RESULT_BYTES = 64 * 2**20
"""Of a result, as JSON: a few of them may not fill the bucket."""


class ResultParts(Wire):
    """What stands under the key of a result that has `parts` parts, under the keys `<prefix>.<number>`."""

    prefix: str
    parts: int


class JobStore:
    """All writes are conditional, so that of any number of writers one wins and the others learn it. Reads
    ask the leading server, so that a job that was accepted is not taken for one that is not there.

    Raises `BusUnavailable` when NATS is away, `QueueFull` when a bucket is.
    """

    def __init__(self, bus: Bus) -> None:
        self.jobs = Bucket(bus, JOBS)
        self.results = Bucket(bus, RESULTS)
        self.jobs_stream = f"KV_{JOBS}"

    async def create(self, record: JobRecord) -> JobRecord | None:
        """Write a new record; the one that is there already, or None when this one was written."""
        present = await self._create(self.jobs, record.id, record.model_dump_json(exclude_defaults=True))
        return None if present is None else JobRecord.model_validate_json(present)

    async def withdraw(self, record: JobRecord) -> None:
        """Take back a record that nobody has changed since `create`."""
        present = await self.jobs.latest(record.id, sure=True)
        if present.value is not None and JobRecord.model_validate_json(present.value) == record:
            try:
                await self.jobs.delete_at(record.id, present.revision)
            except Conflict:
                return

    async def record(self, job_id: str) -> JobRecord | None:
        entry = await self.jobs.get(job_id, sure=True)
        return None if entry is None or entry.value is None else JobRecord.model_validate_json(entry.value)

    async def change(self, job_id: str, change: Callable[[JobRecord], JobRecord | None]) -> JobRecord | None:
        """Apply `change` to the record as it is, and write what it returns with the time of now.

        `change` may be called several times; where it returns None the record stays as it is. Returns the
        record as it is now, None when there is none.
        """
        for _ in range(TRIES):
            entry = await self.jobs.get(job_id, sure=True)
            if entry is None or entry.value is None:
                return None
            record = JobRecord.model_validate_json(entry.value)
            changed = change(record)
            if changed is None:
                return record
            changed = changed.model_copy(update={"changed_at": time.time()})
            try:
                value = changed.model_dump_json(exclude_defaults=True).encode()
                await self.jobs.put(job_id, value, last=entry.revision)
            except Conflict:
                await asyncio.sleep(PAUSE_S)
                continue
            return changed
        raise BusUnavailable(f"the record of {job_id} changes faster than it can be written")

    async def result(self, job_id: str, retry_number: int) -> JobResult | None:
        entry = await self.results.get(result_key(job_id, retry_number), sure=True)
        return None if entry is None or entry.value is None else await self._read(entry.value)

    async def settle(self, result: JobResult) -> JobResult:
        """Write the result unless its round has one; the one that counts. Raises `PayloadTooLarge`."""
        key = result_key(result.id, result.retry_number)
        value = result.model_dump_json(exclude_defaults=True)
        if len(value) > PART_BYTES // 4:  # of a character
            value = await self._in_parts(key, value.encode())
        present = await self._create(self.results, key, value)
        return result if present is None else await self._read(present)

    async def _in_parts(self, key: str, value: bytes) -> str:
        """What to write under `key` for a value that one message may not hold. Its parts are there before it,
        under keys that no other writer has."""
        size = len(value)
        if size <= PART_BYTES:
            return value.decode()
        if size > MAX_RESULT_BYTES:
            raise PayloadTooLarge(f"the answer has {size} bytes, and a job's may have {MAX_RESULT_BYTES}")
        prefix = f"{key}.{token_hex(4)}"
        starts = range(0, size, PART_BYTES)
        for number, start in enumerate(starts):
            await self.results.put(f"{prefix}.{number}", value[start : start + PART_BYTES])
        return ResultParts(prefix=prefix, parts=len(starts)).model_dump_json()

    async def _read(self, value: bytes) -> JobResult:
        if not value.startswith(b'{"prefix":'):
            return JobResult.model_validate_json(value)
        index = ResultParts.model_validate_json(value)
        found: list[bytes] = []
        for number in range(index.parts):
            entry = await self.results.get(f"{index.prefix}.{number}", sure=True)
            if entry is None or entry.value is None:
                raise BusUnavailable(f"part {number} of the result {index.prefix} is not there")
            found.append(entry.value)
        return JobResult.model_validate_json(b"".join(found))

    @staticmethod
    async def _create(bucket: Bucket, key: str, value: str) -> bytes | None:
        """Write a key that is not there; what is there if it is. A deleted key counts as not there."""
        last = 0
        for _ in range(TRIES):
            try:
                await bucket.put(key, value.encode(), last=last)
                return None
            except Conflict:
                present = await bucket.latest(key, sure=True)
                if present.value is not None:
                    return present.value
                last = present.revision
                await asyncio.sleep(PAUSE_S)
        raise BusUnavailable(f"{bucket.name}/{key} changes faster than it can be written")
