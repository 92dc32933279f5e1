"""Where jobs are handed in, asked for and taken back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from actors.bus.bus import Bus, Message
from actors.bus.jetstream import enqueue
from actors.bus.subjects import RunQueue, StreamAddress
from actors.jobs import job_json as view
from actors.jobs import stream_pages as stored
from actors.jobs.completion import record_result
from actors.jobs.errors import KeyReused, NoSuchJob, TooManyJobs
from actors.jobs.metrics import JOBS_SUBMITTED
from actors.jobs.records import (
    MESSAGE_ID,
    RETRY_HEADER,
    JobRecord,
    JobResult,
    JobStatus,
    QueuedJob,
    is_job_id,
)
from actors.jobs.store import JobStore
from actors.runtime.envelope import Envelope
from actors.streams.client import ID_HEADER
from actors.telemetry.telemetry import recorded_trace_id
from orchestration.errors import Cancelled, OrchestraError, Unavailable
from orchestration.messages import Ended, Generation, Run

NO_PATTERN = "generation"
"""The subject token of jobs of a model, where those of a pattern have its name."""
Charge = Callable[[], Awaitable[object]]


async def _nothing() -> None:
    """What a job costs where nobody counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmission:
    """A job to be: `run` has its id, `model` the name that was asked for, `fingerprint` stands for all that
    the submitter said; `max_unfinished` is how many jobs of the caller may be unfinished, None for any
    number; `keyed` says that its id belongs to an idempotency key; `notes` are for the submitter, with the
    answer."""

    work: Generation | Run
    model: str
    fingerprint: str
    webhook: str = ""
    owner: str = ""
    max_unfinished: int | None = None
    keyed: bool = False
    notes: tuple[str, ...] = ()


class JobService:
    """Any number of them work on the same books.

    A `viewer` is the namespace of who asks: another's jobs are not there for it. None sees all.
    """

    def __init__(self, bus: Bus, *, max_listed: int) -> None:
        self.bus = bus
        self.store = JobStore(bus)
        self.max_listed = max_listed
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By caller."""

    async def submit(
        self, submission: JobSubmission, envelope: Envelope, charge: Charge = _nothing
    ) -> tuple[dict[str, Any], bool]:
        """The accepted job, and whether it is new: False where the idempotency key names an earlier one.

        `charge` is called before anything is written, and not for an earlier job; what it raises refuses
        the job. When this returns the job is in the queue, once. Raises `KeyReused`, `TooManyJobs`,
        `QueueFull`, `BusUnavailable`.
        """
        if submission.keyed:
            earlier = await self._earlier(submission, await self.store.record(submission.work.id))
            if earlier is not None:
                return earlier, False
        await charge()
        record = _record(submission, envelope)
        async with self._turn(submission, envelope.caller):
            present = await self.store.create(record)
            earlier = await self._earlier(submission, present)
            if earlier is not None:
                return earlier, False
            await self._enqueue(record, submission, envelope)
        queued = await self.store.change(record.id, _queued)
        if queued is None:  # a submission of the same key that failed has taken the record back
            raise Unavailable("the job could not be queued; submit it again", retry_after_s=1)
        JOBS_SUBMITTED.labels(record.priority.value).inc()
        return view.job_json(queued, None), present is None

    async def _earlier(self, submission: JobSubmission, present: JobRecord | None) -> dict[str, Any] | None:
        """The job that the order's key names, once it is in the queue. Raises `KeyReused`."""
        if present is None:
            return None
        if present.fingerprint != submission.fingerprint:
            raise KeyReused("this Idempotency-Key belongs to a job with another body")
        queued = present.queued or present.status is not JobStatus.QUEUED
        return await self._view(present) if queued else None

    @asynccontextmanager
    async def _turn(self, submission: JobSubmission, caller: str) -> AsyncIterator[None]:
        """Where jobs are counted, one of a caller is counted and queued before the next is counted.

        Raises `TooManyJobs`. The queue has a message for each job that has not ended: that counts right
        whoever dies. Two gateways may each let the last one in.
        """
        if submission.max_unfinished is None:
            yield
            return
        async with self._turns.setdefault(caller, asyncio.Lock()):
            state = await stored.stream_state(self.bus, RunQueue.STREAM, RunQueue.of_caller(caller))
            if sum((state.get("subjects") or {}).values()) >= submission.max_unfinished:
                raise TooManyJobs.of(caller, submission.max_unfinished)
            yield

    async def _enqueue(self, record: JobRecord, submission: JobSubmission, envelope: Envelope) -> None:
        work, counted = submission.work, "" if submission.max_unfinished is None else envelope.caller
        headers = {ID_HEADER: work.id, MESSAGE_ID: record.message_id, RETRY_HEADER: "0"}
        headers |= Envelope(trace=envelope.trace, caller=envelope.caller).headers()
        body = QueuedJob(type="job", work=work).model_dump_json(exclude_defaults=True).encode()
        queue = RunQueue(work.priority, record.pattern or NO_PATTERN, counted)
        try:
            await enqueue(self.bus, queue.subject, body, headers)
        except OrchestraError:
            # A message that was stored all the same finds no record, and is dropped.
            await self.store.withdraw(record)
            raise

    async def get(self, job_id: str, viewer: str | None = None) -> dict[str, Any]:
        """Raises `NoSuchJob`."""
        return await self._view(await self._record(job_id, viewer))

    async def cancel(self, job_id: str, viewer: str | None = None) -> dict[str, Any]:
        """Take a job back; one that has ended stays as it is. Raises `NoSuchJob`."""
        record = await self._record(job_id, viewer)
        if not record.status.final:
            error = Cancelled("the job was cancelled")
            cancelled = JobResult(
                id=job_id,
                retry_number=record.retry_number,
                status=JobStatus.CANCELLED,
                ended=Ended(seq=0, finish_reason="cancelled", error=error.body(), trace_id=record.trace_id),
                finished_at=time.time(),
            )
            counts = await record_result(self.bus, self.store, cancelled)
            if counts.status is JobStatus.CANCELLED:
                await self.bus.publish(StreamAddress(job_id).cancel)
        return await self.get(job_id)

    async def list(self, *, limit: int, before: int = 0, viewer: str | None = None) -> dict[str, Any]:
        """The latest changed first. `next` is the `before` of the next page, 0 at the end; a page may have
        fewer than `limit`, even none, before the end, where most jobs are another's."""

        def seen(message: Message) -> bool:
            return viewer is None or JobRecord.model_validate_json(message.data).owner == viewer

        page, more = await stored.latest_messages(
            self.bus,
            self.store.jobs_stream,
            limit=min(limit, self.max_listed),
            before=before,
            wanted=seen,
        )
        records = [JobRecord.model_validate_json(each.message.data) for each in page]
        return {"object": "list", "data": [view.job_summary(record) for record in records], "next": more}

    async def _record(self, job_id: str, viewer: str | None) -> JobRecord:
        record = await self.store.record(job_id) if is_job_id(job_id) else None
        if record is None or (viewer is not None and record.owner != viewer):
            raise NoSuchJob.of(job_id)
        return record

    async def _view(self, record: JobRecord) -> dict[str, Any]:
        return view.job_json(record, await self.store.result(record.id, record.retry_number))


def _queued(record: JobRecord) -> JobRecord | None:
    return None if record.queued else record.model_copy(update={"queued": True})


def _record(submission: JobSubmission, envelope: Envelope) -> JobRecord:
    now, work = time.time(), submission.work
    return JobRecord(
        id=work.id,
        owner=submission.owner,
        model=submission.model,
        pattern=work.pattern if isinstance(work, Run) else "",
        priority=work.priority,
        webhook=submission.webhook,
        fingerprint=submission.fingerprint,
        notes=submission.notes,
        submitted_at=now,
        changed_at=now,
        trace_id=recorded_trace_id(envelope.trace),
    )
