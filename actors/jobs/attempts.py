"""The coordinator's side of jobs: which attempt to begin, and what comes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from actors.bus.bus import Bus
from actors.bus.jetstream import Delivery
from actors.jobs.completion import announce, settle, tell
from actors.jobs.dead_letters import bury
from actors.jobs.metrics import ATTEMPTS_FAILED
from actors.jobs.records import ROUND_HEADER, JobRecord, JobResult, JobStatus
from actors.jobs.settings import JobsSettings
from actors.jobs.store import Ledger
from orchestration.errors import Cancelled, InternalError, OrchestraError, PayloadTooLarge, ShuttingDown
from orchestration.messages import Ended, TokenLogprob
from orchestration.retries import Fate

STALE_TRIES = 5
"""Times, a second apart, that a job's record is looked for before the job is taken for withdrawn."""


@dataclass(slots=True)
class Draft:
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


class Clerk:
    """Any number of them, in any number of processes, keep the same books."""

    def __init__(self, bus: Bus, settings: JobsSettings) -> None:
        self.bus = bus
        self.settings = settings
        self.ledger = Ledger(bus)

    async def begin(self, job_id: str, delivery: Delivery) -> JobRecord | None:
        """The record of a job whose attempt may begin now; None when there is nothing to do, and the
        message is off the queue.

        Raises `BusUnavailable`, `QueueFull`: the message then comes again.
        """
        round_ = _round_of(delivery)
        result = await self.ledger.result(job_id, round_)
        if result is not None:
            await tell(self.bus, self.ledger, result)
            await delivery.ack()
            return None
        begins = False

        def begun(record: JobRecord) -> JobRecord | None:
            nonlocal begins
            here = record.round == round_ and not record.status.final
            begins = here and record.attempts < self.settings.attempts
            if not begins:
                return None
            changes = {"status": JobStatus.RUNNING, "queued": True, "attempts": record.attempts + 1}
            return record.model_copy(update=changes)

        record = await self.ledger.change(job_id, begun)
        if begins and record is not None:
            announce(self.bus, record)
            return record
        if record is not None and record.round == round_ and not record.status.final:
            await self._give_up(
                record, delivery, f"{record.attempts} attempts, and none came to an end", None
            )
        if (record is None or record.round < round_) and delivery.attempt < STALE_TRIES:
            # A server that has just become the leader may not have all that was acknowledged yet.
            await delivery.nak(1)
            return None
        await delivery.ack()  # given up, withdrawn, expired, or of an earlier round
        return None

    async def succeeded(self, record: JobRecord, delivery: Delivery, draft: Draft, ended: Ended) -> None:
        """Record the answer and take the message off the queue. Raises what `begin` does."""
        result = _result(record, JobStatus.SUCCEEDED, ended, draft)
        try:
            await settle(self.bus, self.ledger, result)
        except PayloadTooLarge as error:
            # It would be as large the next time.
            await settle(self.bus, self.ledger, _result(record, JobStatus.FAILED, _failed(ended, error)))
        await delivery.ack()

    async def failed(
        self, record: JobRecord, delivery: Delivery, error: OrchestraError, ended: Ended
    ) -> bool:
        """Settle the job, give it up, or give it back for another attempt. True when that was its end.

        Raises what `begin` does.
        """
        if isinstance(error, ShuttingDown):  # this process leaves: another may begin at once
            fate, pause = Fate.WAIT, 0.0
        else:
            age = time.time() - record.submitted_at
            fate, pause = self.settings.policy.fate(error, attempts=record.attempts, age_s=age)
        ATTEMPTS_FAILED.labels(error.code, fate.value).inc()
        if fate is Fate.SETTLE:
            status = JobStatus.CANCELLED if isinstance(error, Cancelled) else JobStatus.FAILED
            await settle(self.bus, self.ledger, _result(record, status, ended))
        elif fate is Fate.BURY:
            await self._give_up(record, delivery, f"attempt {record.attempts} failed: {error.message}", ended)
        else:
            await self._give_back(record, error, counts=fate is Fate.RETRY)
            await delivery.nak(pause)
            return False
        await delivery.ack()
        return True

    async def _give_back(self, record: JobRecord, error: OrchestraError, *, counts: bool) -> None:
        def waits(present: JobRecord) -> JobRecord | None:
            if present.round != record.round or present.status is not JobStatus.RUNNING:
                return None
            if present.attempts != record.attempts:  # another has begun meanwhile
                return None
            attempts = present.attempts if counts else present.attempts - 1
            changes = {"status": JobStatus.QUEUED, "attempts": attempts, "last_error": error.body()}
            return present.model_copy(update=changes)

        changed = await self.ledger.change(record.id, waits)
        if changed is not None:
            announce(self.bus, changed)

    async def _give_up(self, record: JobRecord, delivery: Delivery, reason: str, ended: Ended | None) -> None:
        error = record.last_error if ended is None else ended.error
        await bury(self.bus, delivery.message, reason=reason, attempts=record.attempts, error=error)
        if ended is None:
            said = error or InternalError(reason).body()
            ended = Ended(seq=0, finish_reason="error", error=said, trace_id=record.trace_id)
        await settle(self.bus, self.ledger, _result(record, JobStatus.DEAD, ended))


def _round_of(delivery: Delivery) -> int:
    said = delivery.message.header(ROUND_HEADER, "0")
    return int(said) if said.isdecimal() and len(said) < 9 else 0


def _failed(ended: Ended, error: OrchestraError) -> Ended:
    bare = {"finish_reason": "error", "steps": (), "notes": (), "report": {}, "calls": ()}
    return ended.model_copy(update=bare | {"error": error.body()})


def _result(record: JobRecord, status: JobStatus, ended: Ended, draft: Draft | None = None) -> JobResult:
    draft = draft or Draft()
    return JobResult(
        id=record.id,
        round=record.round,
        status=status,
        text="".join(draft.texts),
        logprobs=tuple(draft.logprobs) or None,
        reasoning="".join(draft.reasoning),
        ended=ended,
        finished_at=time.time(),
    )
