"""Attempts of jobs, as coordinators make them: which may begin, and what follows from how they end."""

from __future__ import annotations

import time

from actors.bus.bus import Bus
from actors.bus.jetstream import Delivery
from actors.jobs.completion import publish_completion, publish_status, record_result
from actors.jobs.dead_letters import dead_letter
from actors.jobs.metrics import ATTEMPTS_FAILED
from actors.jobs.records import RETRY_HEADER, JobRecord, JobResult, JobStatus
from actors.jobs.settings import JobsSettings
from actors.jobs.store import JobStore
from orchestration.errors import Cancelled, InternalError, OrchestraError, PayloadTooLarge, ShuttingDown
from orchestration.messages import End, Finish, JoinedText, RunEnd
from orchestration.retries import RetryDecision

MAX_RECORD_READS = 5
"""How often a missing record is looked for, a second apart, before the job counts as withdrawn."""


class JobAttempts:
    """Begins and ends attempts. Any number of processes share one store."""

    def __init__(self, bus: Bus, settings: JobsSettings) -> None:
        self.bus = bus
        self.settings = settings
        self.store = JobStore(bus)

    async def begin(self, job_id: str, delivery: Delivery) -> JobRecord | None:
        """Count an attempt, and return the job's record. Returns None when there is nothing to do, and the
        message is settled.

        Raises `BusUnavailable` and `QueueFull`: the message is then delivered again.
        """
        retry_number = _retry_number(delivery)
        result = await self.store.result(job_id, retry_number)
        if result is not None:
            await publish_completion(self.bus, self.store, result)
            await delivery.ack()
            return None
        may_begin = False

        def begin(record: JobRecord) -> JobRecord | None:
            nonlocal may_begin
            is_open = record.retry_number == retry_number and not record.status.final
            may_begin = is_open and record.attempts < self.settings.max_attempts
            if not may_begin:
                return None
            changes = {
                "status": JobStatus.RUNNING,
                "queued": True,
                "attempts": record.attempts + 1,
                "interrupted": record.status is JobStatus.RUNNING,
            }
            return record.model_copy(update=changes)

        record = await self.store.update(job_id, begin)
        if may_begin and record is not None:
            publish_status(self.bus, record)
            return record
        if record is not None and record.retry_number == retry_number and not record.status.final:
            await self._give_up(record, delivery, f"none of {record.attempts} attempts came to an end", None)
        if (record is None or record.retry_number < retry_number) and delivery.attempt < MAX_RECORD_READS:
            # A server that has just become the leader may not have every acknowledged write yet.
            await delivery.nak(1)
            return None
        await delivery.ack()  # given up, withdrawn, expired, or of an earlier retry
        return None

    async def succeed(self, record: JobRecord, delivery: Delivery, partial: JoinedText, ended: End) -> None:
        """Store the answer, and acknowledge the message. Raises what `begin` raises."""
        result = _result(record, JobStatus.SUCCEEDED, ended, partial)
        try:
            await record_result(self.bus, self.store, result)
        except PayloadTooLarge as error:
            # The next attempt would give an answer as large.
            await record_result(
                self.bus, self.store, _result(record, JobStatus.FAILED, _with_error(ended, error))
            )
        await delivery.ack()

    async def fail(self, record: JobRecord, delivery: Delivery, error: OrchestraError, ended: End) -> bool:
        """Complete the job with the error, move it to the dead letters, or have it tried again.

        Returns whether the job has ended. Raises what `begin` raises.
        """
        if isinstance(error, ShuttingDown):  # another process may begin at once
            decision, pause_s = RetryDecision.WAIT, 0.0
        else:
            age = time.time() - record.submitted_at
            decision, pause_s = self.settings.retry_policy.decide(error, attempts=record.attempts, age_s=age)
        ATTEMPTS_FAILED.labels(error.code, decision.value).inc()
        if decision is RetryDecision.FAIL:
            status = JobStatus.CANCELLED if isinstance(error, Cancelled) else JobStatus.FAILED
            await record_result(self.bus, self.store, _result(record, status, ended))
        elif decision is RetryDecision.DEAD_LETTER:
            await self._give_up(record, delivery, f"attempt {record.attempts} failed: {error.message}", ended)
        else:
            await self._requeue(record, error, counts=decision is RetryDecision.RETRY)
            await delivery.nak(pause_s)
            return False
        await delivery.ack()
        return True

    async def _requeue(self, record: JobRecord, error: OrchestraError, *, counts: bool) -> None:
        def queued(present: JobRecord) -> JobRecord | None:
            if present.retry_number != record.retry_number or present.status is not JobStatus.RUNNING:
                return None
            if present.attempts != record.attempts:  # another attempt has begun meanwhile
                return None
            attempts = present.attempts if counts else present.attempts - 1
            changes = {"status": JobStatus.QUEUED, "attempts": attempts, "last_error": error.body()}
            return present.model_copy(update=changes)

        changed = await self.store.update(record.id, queued)
        if changed is not None:
            publish_status(self.bus, changed)

    async def _give_up(self, record: JobRecord, delivery: Delivery, reason: str, ended: End | None) -> None:
        error = record.last_error if ended is None else ended.error
        await dead_letter(self.bus, delivery.message, reason=reason, attempts=record.attempts, error=error)
        if ended is None:
            body = error or InternalError(reason).body()
            ended = RunEnd(finish=Finish(reason="error"), error=body, trace_id=record.trace_id)
        await record_result(self.bus, self.store, _result(record, JobStatus.DEAD, ended))


def _retry_number(delivery: Delivery) -> int:
    text = delivery.message.header(RETRY_HEADER, "0")
    return int(text) if text.isdecimal() and len(text) < 9 else 0


def _with_error(ended: End, error: OrchestraError) -> RunEnd:
    """The end without what grows with the answer."""
    finish = ended.finish.model_copy(update={"reason": "error", "notes": (), "calls": ()})
    return RunEnd(finish=finish, error=error.body(), trace_id=ended.trace_id, writing_s=ended.writing_s)


def _result(record: JobRecord, status: JobStatus, ended: End, partial: JoinedText | None = None) -> JobResult:
    partial = partial or JoinedText()
    return JobResult(
        id=record.id,
        retry_number=record.retry_number,
        status=status,
        text=partial.text,
        logprobs=tuple(partial.logprobs) or None,
        reasoning=partial.reasoning,
        ended=ended,
        finished_at=time.time(),
    )
