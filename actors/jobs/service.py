"""Submits, shows, lists and cancels jobs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from actors.bus.bus import Bus, Message
from actors.bus.jetstream import MESSAGE_ID_HEADER, enqueue
from actors.bus.subjects import RunQueue
from actors.jobs.completion import cancel_job
from actors.jobs.errors import KeyReused, NoSuchJob, TooManyJobs
from actors.jobs.job_json import job_json, job_summary
from actors.jobs.metrics import JOBS_SUBMITTED
from actors.jobs.records import (
    RETRY_HEADER,
    JobRecord,
    JobStatus,
    QueuedJob,
    is_job_id,
)
from actors.jobs.store import JobStore
from actors.jobs.stream_pages import latest_messages, stream_state
from actors.runtime.envelope import Envelope
from actors.streams.client import ID_HEADER
from actors.telemetry import conventions as names
from actors.telemetry.tracing import recorded_trace_id, start_span
from orchestration.errors import Cancelled, OrchestraError, Unavailable
from orchestration.messages import Run, Work

log = logging.getLogger(__name__)

MAX_WRITES = 64
"""Maximum jobs of this process that are written at a time; more wait here, in order. All at once, the last
of thousands would pass the timeout of a write on a slow disk."""
NO_PATTERN = "generation"
"""Subject token of a job of a model, in the place of a pattern's name."""
Charge = Callable[[], Awaitable[object]]
"""Charges the caller for a job. What it raises refuses the job."""


def _record_of(message: Message) -> JobRecord | None:
    """None for what is no record, which anybody with access to the bucket may have put there."""
    try:
        return JobRecord.model_validate_json(message.data)
    except ValidationError as error:
        log.warning("the record of a job under %s cannot be read: %s", message.subject, error)
        return None


async def _free() -> None:
    """Charge nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmission:
    """A job that is not accepted yet.

    The id of `work` is the job's id. `model` is the name in the body, `fingerprint` a hash of everything the
    submitter sent. `max_unfinished` limits the caller's unfinished jobs; None: unlimited. `keyed` is true
    when the id comes from an idempotency key. `notes` are returned with the answer.
    """

    work: Work
    model: str
    fingerprint: str
    webhook: str = ""
    owner: str = ""
    max_unfinished: int | None = None
    keyed: bool = False
    notes: tuple[str, ...] = ()


class JobService:
    """What gateways do with jobs. Any number of gateways share one store.

    A `viewer` is the caller's namespace: it sees only the jobs of its own. None sees all jobs.
    """

    def __init__(self, bus: Bus, *, max_listed: int) -> None:
        self.bus = bus
        self.store = JobStore(bus)
        self.max_listed = max_listed
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """A lock for each caller whose jobs are counted."""
        self._writes = asyncio.Semaphore(MAX_WRITES)

    async def submit(
        self, submission: JobSubmission, envelope: Envelope, charge: Charge = _free
    ) -> tuple[dict[str, Any], bool]:
        """Accept a job. Returns it, and whether it is new: False when its key names an earlier job.

        When this returns, the job is in the queue, once. `charge` is called before anything is written, and
        not for an earlier job. Raises what `charge` raises, `KeyReused`, `TooManyJobs`, `QueueFull` and
        `BusUnavailable`.
        """
        if submission.keyed:
            earlier = await self._earlier(submission, await self.store.record(submission.work.id))
            if earlier is not None:
                return earlier, False
        await charge()
        record = _record(submission, envelope)
        async with self._one_at_a_time(submission, envelope.caller), self._writes:
            present = await self.store.create(record)
            earlier = await self._earlier(submission, present)
            if earlier is not None:
                return earlier, False
            await self._enqueue(record, submission, envelope)
        queued = await self.store.update(record.id, _queued)
        if queued is None:  # another submission with this key failed, and deleted the record
            raise Unavailable("the job could not be queued; submit it again", retry_after_s=1)
        JOBS_SUBMITTED.labels(record.priority.value).inc()
        return job_json(queued, None), present is None

    async def _earlier(self, submission: JobSubmission, present: JobRecord | None) -> dict[str, Any] | None:
        """The job that the idempotency key names, once it is in the queue. Raises `KeyReused`."""
        if present is None:
            return None
        if present.fingerprint != submission.fingerprint:
            raise KeyReused("this Idempotency-Key belongs to a job with another body; use a new key")
        queued = present.queued or present.status is not JobStatus.QUEUED
        return await self._json(present) if queued else None

    @asynccontextmanager
    async def _one_at_a_time(self, submission: JobSubmission, caller: str) -> AsyncIterator[None]:
        """Let a caller whose jobs are counted queue one job at a time. Raises `TooManyJobs`.

        The count is that of the caller's messages in the queue, which has one for each unfinished job, also
        after a process died. Two gateways that count at the same time may both admit the last job.
        """
        if submission.max_unfinished is None:
            yield
            return
        async with self._locks.setdefault(caller, asyncio.Lock()):
            state = await stream_state(self.bus, RunQueue.STREAM, RunQueue.of_caller(caller))
            if sum((state.get("subjects") or {}).values()) >= submission.max_unfinished:
                raise TooManyJobs.of(caller, submission.max_unfinished)
            yield

    async def _enqueue(self, record: JobRecord, submission: JobSubmission, envelope: Envelope) -> None:
        work, counted = submission.work, "" if submission.max_unfinished is None else envelope.caller
        headers = {ID_HEADER: work.id, MESSAGE_ID_HEADER: record.message_id, RETRY_HEADER: "0"}
        body = QueuedJob(work=work).model_dump_json(exclude_defaults=True).encode()
        queue = RunQueue(work.priority, record.pattern or NO_PATTERN, counted)
        attributes = {names.MESSAGING_SYSTEM: "nats", names.MESSAGING_DESTINATION: RunQueue.STREAM}
        sending = start_span(f"send {RunQueue.STREAM}", envelope.trace, attributes, kind=SpanKind.PRODUCER)
        try:
            with sending:
                trace = sending.traceparent or envelope.trace
                headers |= Envelope(trace=trace, caller=envelope.caller).headers()
                await enqueue(self.bus, queue.subject, body, headers)
        except OrchestraError:
            # If the message was stored all the same, it has no record, and the coordinator drops it.
            await self.store.withdraw(record)
            raise

    async def get(self, job_id: str, viewer: str | None = None) -> dict[str, Any]:
        """Raises `NoSuchJob`."""
        return await self._json(await self._record(job_id, viewer))

    async def cancel(self, job_id: str, viewer: str | None = None) -> dict[str, Any]:
        """Cancel a job. A job that has ended stays as it is. Raises `NoSuchJob`."""
        record = await self._record(job_id, viewer)
        if not record.status.final:
            error = Cancelled("the job was cancelled")
            await cancel_job(self.bus, self.store, record, error)
        return await self.get(job_id)

    async def list(self, *, limit: int, before: int = 0, viewer: str | None = None) -> dict[str, Any]:
        """A page of jobs, the latest changed first. `next` is the `before` of the next page, 0 at the end.

        A page before the end may have fewer than `limit` jobs, when most jobs belong to others, or where
        records cannot be read.
        """

        def visible(message: Message) -> bool:
            return viewer is None or ((record := _record_of(message)) is not None and record.owner == viewer)

        page, more = await latest_messages(
            self.bus,
            self.store.jobs_stream,
            limit=min(limit, self.max_listed),
            before=before,
            matches=visible,
        )
        records = [record for each in page if (record := _record_of(each.message)) is not None]
        return {"object": "list", "data": [job_summary(record) for record in records], "next": more}

    async def _record(self, job_id: str, viewer: str | None) -> JobRecord:
        record = await self.store.record(job_id) if is_job_id(job_id) else None
        if record is None or (viewer is not None and record.owner != viewer):
            raise NoSuchJob.of(job_id)
        return record

    async def _json(self, record: JobRecord) -> dict[str, Any]:
        return job_json(record, await self.store.result(record.id, record.retry_number))


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
