"""The coordinator's side of jobs: which attempt to begin, and what comes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from actors.bus.bus import Bus
from actors.bus.jetstream import Delivery
from actors.jobs.completion import publish_completion, publish_status, record_result
from actors.jobs.dead_letters import dead_letter
from actors.jobs.metrics import ATTEMPTS_FAILED
from actors.jobs.records import RETRY_HEADER, JobRecord, JobResult, JobStatus
from actors.jobs.settings import JobsSettings
from actors.jobs.store import JobStore
from orchestration.errors import Cancelled, InternalError, OrchestraError, PayloadTooLarge, ShuttingDown
from orchestration.messages import Ended, TokenLogprob
from orchestration.retries import RetryDecision

STALE_TRIES = 5
"""Times, a second apart, that a job's record is looked for before the job is taken for withdrawn."""


@dataclass(slots=True)
class PartialAnswer:
    """The answer of an attempt, as it grows."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)

    def add(
        self, text: str, logprobs: tuple[TokenLogprob, ...] | None, reasoning: str, replaces: int
    ) -> None:
        """Arguments as those of `StreamWriter.piece`."""
        if replaces:
            self.texts, self.logprobs = [], []
        self.texts.append(text[replaces:])
        self.reasoning.append(reasoning)
        if logprobs:
            self.logprobs.extend(logprobs)


class JobAttempts:
    """Any number of them, in any number of processes, keep the same books."""

    def __init__(self, bus: Bus, settings: JobsSettings) -> None:
        self.bus = bus
        self.settings = settings
        self.store = JobStore(bus)

    async def begin(self, job_id: str, delivery: Delivery) -> JobRecord | None:
        """The record of a job whose attempt may begin now; None when there is nothing to do, and the
        message is off the queue.

        Raises `BusUnavailable`, `QueueFull`: the message then comes again.
        """
        retry_number = _retry_number(delivery)
        result = await self.store.result(job_id, retry_number)
        if result is not None:
            await publish_completion(self.bus, self.store, result)
            await delivery.ack()
            return None
        begins = False

        def begun(record: JobRecord) -> JobRecord | None:
            nonlocal begins
            here = record.retry_number == retry_number and not record.status.final
            begins = here and record.attempts < self.settings.max_attempts
            if not begins:
                return None
            changes = {"status": JobStatus.RUNNING, "queued": True, "attempts": record.attempts + 1}
            return record.model_copy(update=changes)

        record = await self.store.change(job_id, begun)
        if begins and record is not None:
            publish_status(self.bus, record)
            return record
        if record is not None and record.retry_number == retry_number and not record.status.final:
            await self._give_up(
                record, delivery, f"{record.attempts} attempts, and none came to an end", None
            )
        if (record is None or record.retry_number < retry_number) and delivery.attempt < STALE_TRIES:
            # A server that has just become the leader may not have all that was acknowledged yet.
            await delivery.nak(1)
            return None
        await delivery.ack()  # given up, withdrawn, expired, or of an earlier round
        return None

    async def succeeded(
        self, record: JobRecord, delivery: Delivery, partial: PartialAnswer, ended: Ended
    ) -> None:
        """Record the answer and take the message off the queue. Raises what `begin` does."""
        result = _result(record, JobStatus.SUCCEEDED, ended, partial)
        try:
            await record_result(self.bus, self.store, result)
        except PayloadTooLarge as error:
            # It would be as large the next time.
            await record_result(
                self.bus, self.store, _result(record, JobStatus.FAILED, _failed(ended, error))
            )
        await delivery.ack()

    async def failed(
        self, record: JobRecord, delivery: Delivery, error: OrchestraError, ended: Ended
    ) -> bool:
        """Settle the job, give it up, or give it back for another attempt. True when that was its end.

        Raises what `begin` does.
        """
        if isinstance(error, ShuttingDown):  # this process leaves: another may begin at once
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
            await self._give_back(record, error, counts=decision is RetryDecision.RETRY)
            await delivery.nak(pause_s)
            return False
        await delivery.ack()
        return True

    async def _give_back(self, record: JobRecord, error: OrchestraError, *, counts: bool) -> None:
        def waits(present: JobRecord) -> JobRecord | None:
            if present.retry_number != record.retry_number or present.status is not JobStatus.RUNNING:
                return None
            if present.attempts != record.attempts:  # another has begun meanwhile
                return None
            attempts = present.attempts if counts else present.attempts - 1
            changes = {"status": JobStatus.QUEUED, "attempts": attempts, "last_error": error.body()}
            return present.model_copy(update=changes)

        changed = await self.store.change(record.id, waits)
        if changed is not None:
            publish_status(self.bus, changed)

    async def _give_up(self, record: JobRecord, delivery: Delivery, reason: str, ended: Ended | None) -> None:
        error = record.last_error if ended is None else ended.error
        await dead_letter(self.bus, delivery.message, reason=reason, attempts=record.attempts, error=error)
        if ended is None:
            said = error or InternalError(reason).body()
            ended = Ended(seq=0, finish_reason="error", error=said, trace_id=record.trace_id)
        await record_result(self.bus, self.store, _result(record, JobStatus.DEAD, ended))


def _retry_number(delivery: Delivery) -> int:
    said = delivery.message.header(RETRY_HEADER, "0")
    return int(said) if said.isdecimal() and len(said) < 9 else 0


def _failed(ended: Ended, error: OrchestraError) -> Ended:
    bare = {"finish_reason": "error", "steps": (), "notes": (), "report": {}, "calls": ()}
    return ended.model_copy(update=bare | {"error": error.body()})


def _result(
    record: JobRecord, status: JobStatus, ended: Ended, partial: PartialAnswer | None = None
) -> JobResult:
    partial = partial or PartialAnswer()
    return JobResult(
        id=record.id,
        retry_number=record.retry_number,
        status=status,
        text="".join(partial.texts),
        logprobs=tuple(partial.logprobs) or None,
        reasoning="".join(partial.reasoning),
        ended=ended,
        finished_at=time.time(),
    )
