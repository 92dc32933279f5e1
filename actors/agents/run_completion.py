"""Completes a run: writes the end of its stream, stores the result of a job, acknowledges its message."""

from __future__ import annotations

import time
from collections.abc import Callable
from secrets import token_hex
from typing import Any

from actors.agents.coordinator import RunExecution
from actors.agents.metrics import RUN_SECONDS, RUNS, count_tokens
from actors.agents.run_attempt import RunAttempt
from actors.agents.run_event_publisher import RunEventPublisher
from actors.agents.run_log import RETRY, record_ended
from actors.agents.step_records import StepRecords
from actors.bus.bus import Bus
from actors.bus.jetstream import Delivery
from actors.bus.subjects import StreamAddress
from actors.jobs.attempts import JobAttempts
from actors.jobs.records import JobRecord
from actors.runtime.envelope import Envelope
from actors.runtime.invocation import Invocation
from actors.streams.handoff import RemoteReader
from actors.streams.writer import StreamWriter
from actors.telemetry.tracing import recorded_trace_id
from orchestration.accounts import accounts_of, total_of
from orchestration.errors import Cancelled, CancelledByOperator, OrchestraError, ShuttingDown
from orchestration.fitting import MAX_END_BYTES, fitting
from orchestration.messages import (
    End,
    Finish,
    JoinedText,
    Priority,
    RunEnd,
    StreamPosition,
    TextDelta,
    Work,
)
from orchestration.patterns import ResumeFilter


class RunCompletion:
    """Completes a run whose caller waits: ends its stream, then acknowledges its message."""

    def __init__(
        self,
        delivery: Delivery,
        work: Work,
        envelope: Envelope,
        position: StreamPosition | None = None,
        *,
        label: str,
        on_finish: Callable[[RunCompletion], None],
    ) -> None:
        """`position` is what was read of the stream, if another coordinator had the run before. `label` is
        the pattern's name in metrics. `on_finish` is called once, when the run is settled, however it
        ended."""
        self.delivery = delivery
        self.label = label
        self.on_finish = on_finish
        self.priority: Priority | None = None
        self.invocation: Invocation | None = None
        self.began = time.perf_counter()
        self.started_at = time.time()
        self.stopped_by: CancelledByOperator | None = None
        """The error of a run that an operator has cancelled."""
        writer = self.make_writer(StreamAddress(work.id), position)
        run_events = RunEventPublisher(delivery.bus, work.id, delivery.attempt, envelope.caller)
        records = StepRecords(delivery.bus, work.id)
        self.execution = RunExecution(work, envelope, writer, run_events, records)
        self.execution.attempt = RunAttempt.of(delivery, before_lost=delivery.attempt > 1)
        self.execution.ordinal = delivery.attempt
        if position is not None:
            begun = position.continuation
            self.execution.resume_filter = ResumeFilter(begun.text, begun.tokens)

    def make_writer(self, address: StreamAddress, position: StreamPosition | None) -> StreamWriter:
        if position is None:
            return StreamWriter(self.delivery.bus, address, self._gone)
        begun = position.continuation
        return StreamWriter(
            self.delivery.bus, address, self._gone, begun.writer or token_hex(4), begun.first_seq
        )

    def cancel(self, at_ns: int = 0) -> None:
        """Cancel the run: the caller no longer wants the answer, since `at_ns` or now."""
        self.execution.caller_left = True
        if self.invocation is not None:
            self.invocation.cancel(at_ns)

    def stop(self, error: CancelledByOperator) -> None:
        """Cancel the run by the order of an operator; it ends with `error`."""
        self.stopped_by = error
        self.cancel()

    def _gone(self) -> None:
        """Called by the writer when the stream has no reader, or another coordinator has the run."""
        self.cancel(self.execution.writer.gone_ns)

    async def item(self, value: Any) -> None:
        raise TypeError("a coordinator writes its stream itself")

    async def done(self, ended: End) -> None:
        self._count("ok")
        self._publish_end(ended)
        self._log_end(ended)
        try:
            await self.execution.writer.end(ended)
            await self.delivery.ack()
            await self.execution.records.remove()
        finally:
            self._finish()

    async def failed(self, error: OrchestraError) -> None:
        """End the stream with the error. While shutting down, give work back to the queue instead."""
        error = self.stopped_by or error
        self._count(error.code)
        try:
            if isinstance(error, ShuttingDown) and self.execution.work.priority is not Priority.INTERACTIVE:
                await self.execution.step_cache.next()
                await self.delivery.nak()
                return
            ended = self._ended(error)
            self._publish_end(ended)
            if self.execution.writer.superseded and await self._superseded():
                return
            self._log_end(ended)
            await self.execution.writer.end(ended)
            await self.delivery.ack()
            await self.execution.records.remove()
        finally:
            self._finish()

    async def _superseded(self) -> bool:
        """Whether another coordinator has the run and settles it."""
        return await RemoteReader(self.delivery.bus, self.execution.work.id).is_superseded(
            self.delivery.attempt
        )

    def _ended(self, error: OrchestraError) -> RunEnd:
        ended = RunEnd(
            finish=Finish(
                reason="cancelled" if isinstance(error, Cancelled) else "error",
                usage=total_of(self.execution.steps),
            ),
            steps=tuple(self.execution.steps),
            accounts=accounts_of(self.execution.steps) if self.execution.steps else None,
            error=error.body(),
            trace_id=recorded_trace_id(self.execution.envelope.trace),
        )
        return fitting(ended, min(MAX_END_BYTES, self.delivery.bus.max_payload // 2))

    def _count(self, outcome: str) -> None:
        RUNS.labels(self.label, outcome).inc()
        RUN_SECONDS.labels(self.label).observe(time.perf_counter() - self.began)

    def _publish_end(self, ended: End) -> None:
        """Count the tokens of the run, and publish its last event."""
        count_tokens(self.label, ended.finish.usage)
        fields = {"finish_reason": ended.finish.reason, "usage": ended.finish.usage, "error": ended.error}
        self.execution.run_events.add("ended", fields)

    def _log_end(self, ended: End) -> None:
        record_ended(self.execution, ended, time.perf_counter() - self.began)

    def _finish(self) -> None:
        self.execution.run_events.flush()
        self.execution.writer.close()
        self.on_finish(self)


class AnswerRecorder(StreamWriter):
    """Writes a stream, and keeps what it writes as the answer of a job."""

    def __init__(self, bus: Bus, address: StreamAddress, on_gone: Callable[[], object]) -> None:
        super().__init__(bus, address, on_gone)
        self.partial = JoinedText()

    async def write(self, delta: TextDelta) -> None:
        self.partial.add(delta)
        await super().write(delta)


class JobCompletion(RunCompletion):
    """Completes a job: stores its result first, then ends its stream, which may have watchers."""

    def __init__(
        self,
        delivery: Delivery,
        work: Work,
        envelope: Envelope,
        attempts: JobAttempts,
        *,
        label: str,
        on_finish: Callable[[RunCompletion], None],
    ) -> None:
        self.attempts = attempts
        self.recorder: AnswerRecorder
        self.record: JobRecord | None = None
        self.cancelled = False
        super().__init__(delivery, work, envelope, label=label, on_finish=on_finish)

    def make_writer(self, address: StreamAddress, position: StreamPosition | None) -> StreamWriter:
        self.recorder = AnswerRecorder(self.delivery.bus, address, self._gone)
        return self.recorder

    def _gone(self) -> None:
        """The stream has no reader. A job goes on without."""

    async def begin(self) -> bool:
        """Count an attempt in the job's record. False when there is nothing to do."""
        try:
            self.record = await self.attempts.begin(self.execution.work.id, self.delivery)
        finally:  # after an error the job is delivered again when its ack_wait is over
            if self.record is None:
                self._finish()
        return self.record is not None

    async def prepare(self) -> None:
        """Read the steps that earlier attempts have finished. Raises `Cancelled` for a cancelled job."""
        assert self.record is not None
        attempt = RunAttempt.of(self.delivery, before_lost=self.record.interrupted, is_job=True)
        self.execution.attempt = attempt
        self.execution.ordinal = self.record.retry_number * RETRY + self.record.attempts
        if self.record.attempts > 1 or self.delivery.attempt > 1:
            self.execution.known = await self.execution.records.known()
        if self.cancelled:
            raise Cancelled("the job was cancelled")

    def cancel(self, at_ns: int = 0) -> None:
        self.cancelled = True
        super().cancel(at_ns)

    async def done(self, ended: End) -> None:
        assert self.record is not None
        self._count("ok")
        try:
            await self.attempts.succeed(self.record, self.delivery, self.recorder.partial, ended)
            self._publish_end(ended)
            self._log_end(ended)
            await self.recorder.end(ended)
            await self.execution.records.remove()
        finally:
            self._finish()

    async def failed(self, error: OrchestraError) -> None:
        assert self.record is not None
        error = self.stopped_by or error
        self._count(error.code)
        try:
            await self.execution.step_cache.next()  # it may be tried again
            ended = self._ended(error)
            if await self.attempts.fail(self.record, self.delivery, error, ended):
                self._publish_end(ended)
                self._log_end(ended)
                await self.recorder.end(ended)
                await self.execution.records.remove()
        finally:
            self._finish()
