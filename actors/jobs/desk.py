"""Where jobs are handed in, asked for and taken back."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from actors.asker import ID_HEADER
from actors.jobs import stored, view
from actors.jobs.errors import KeyReused, NoSuchJob
from actors.jobs.ledger import Ledger
from actors.jobs.metrics import JOBS_SUBMITTED
from actors.jobs.records import (
    MESSAGE_ID,
    ROUND_HEADER,
    JobRecord,
    JobResult,
    JobStatus,
    is_job,
)
from actors.jobs.settling import settle
from actors.runtime.bus import Bus
from actors.runtime.envelope import Envelope
from actors.runtime.jetstream import enqueue
from actors.runtime.subjects import RunQueue, StreamAddress
from actors.runtime.telemetry import trace_id
from orchestration.errors import Cancelled, OrchestraError, Unavailable
from orchestration.messages import Ended, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A job to be: `run` has its id, `model` the name that was asked for, `fingerprint` stands for all that
    the submitter said."""

    run: Run
    model: str
    fingerprint: str
    webhook: str = ""


class Desk:
    """Any number of them work on the same books."""

    def __init__(self, bus: Bus, *, max_listed: int) -> None:
        self.bus = bus
        self.ledger = Ledger(bus)
        self.max_listed = max_listed

    async def submit(self, order: Order, envelope: Envelope) -> tuple[dict[str, Any], bool]:
        """The accepted job, and whether it is new: False where the idempotency key names an earlier one.

        When it returns the job is in the queue, once. Raises `KeyReused`, `QueueFull`, `BusUnavailable`.
        """
        now = time.time()
        record = JobRecord(
            id=order.run.id,
            model=order.model,
            pattern=order.run.pattern,
            priority=order.run.priority,
            webhook=order.webhook,
            fingerprint=order.fingerprint,
            submitted_at=now,
            changed_at=now,
            trace_id=trace_id(envelope.trace),
        )
        present = await self.ledger.create(record)
        if present is not None:
            if present.fingerprint != order.fingerprint:
                raise KeyReused("this Idempotency-Key belongs to a job with another body")
            if present.queued or present.status is not JobStatus.QUEUED:
                return await self._view(present), False
        await self._enqueue(record, order.run, envelope)
        queued = await self.ledger.change(record.id, _queued)
        if queued is None:  # a submission of the same key that failed has taken the record back
            raise Unavailable("the job could not be queued; submit it again", retry_after_s=1)
        JOBS_SUBMITTED.labels(record.priority.value).inc()
        return view.whole(queued, None), present is None

    async def _enqueue(self, record: JobRecord, run: Run, envelope: Envelope) -> None:
        headers = {ID_HEADER: run.id, MESSAGE_ID: record.message_id, ROUND_HEADER: "0"}
        headers |= Envelope(trace=envelope.trace, caller=envelope.caller).headers()
        body = run.model_dump_json(exclude_defaults=True).encode()
        try:
            await enqueue(self.bus, RunQueue(run.priority, run.pattern).subject, body, headers)
        except OrchestraError:
            # A message that was stored all the same finds no record, and is dropped.
            await self.ledger.withdraw(record)
            raise

    async def get(self, job_id: str) -> dict[str, Any]:
        """Raises `NoSuchJob`."""
        return await self._view(await self._record(job_id))

    async def cancel(self, job_id: str) -> dict[str, Any]:
        """Take a job back; one that has ended stays as it is. Raises `NoSuchJob`."""
        record = await self._record(job_id)
        if not record.status.final:
            error = Cancelled("the job was cancelled")
            cancelled = JobResult(
                id=job_id,
                round=record.round,
                status=JobStatus.CANCELLED,
                ended=Ended(seq=0, finish_reason="cancelled", error=error.body(), trace_id=record.trace_id),
                finished_at=time.time(),
            )
            counts = await settle(self.bus, self.ledger, cancelled)
            if counts.status is JobStatus.CANCELLED:
                await self.bus.publish(StreamAddress(job_id).cancel)
        return await self.get(job_id)

    async def list(self, *, limit: int, before: int = 0) -> dict[str, Any]:
        """The latest changed first. `next` is the `before` of the next page, 0 at the end."""
        page, more = await stored.newest(
            self.bus, self.ledger.jobs_stream, limit=min(limit, self.max_listed), before=before
        )
        records = [JobRecord.model_validate_json(each.message.data) for each in page]
        return {"object": "list", "data": [view.summary(record) for record in records], "next": more}

    async def _record(self, job_id: str) -> JobRecord:
        record = await self.ledger.record(job_id) if is_job(job_id) else None
        if record is None:
            raise NoSuchJob.of(job_id)
        return record

    async def _view(self, record: JobRecord) -> dict[str, Any]:
        return view.whole(record, await self.ledger.result(record.id, record.round))


def _queued(record: JobRecord) -> JobRecord | None:
    return None if record.queued else record.model_copy(update={"queued": True})
