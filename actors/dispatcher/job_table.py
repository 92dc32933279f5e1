"""The generations that a dispatcher has pulled and not settled, and their messages in the queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from actors.bus.bus import Bus
from actors.bus.cancel_registry import CancelRegistry
from actors.bus.held_generations import Waiting
from actors.bus.jetstream import Delivery
from actors.bus.subjects import GenerationQueue, StreamAddress
from actors.dispatcher.pulled_job import PulledJob
from actors.jobs.dead_letters import dead_letter_delivery
from actors.placement.metrics import ended
from actors.streams.channel import OUT_OF_BAND
from orchestration.errors import BusUnavailable, Cancelled, CancelledByOperator, InternalError, OrchestraError
from orchestration.messages import Finish, GenerationEnd, encode_event

log = logging.getLogger(__name__)


class JobTable:
    """The jobs by id, and the cancels of jobs that may still come.

    `withdraw` is called with a job that was cancelled while it was on no node; a node receives the cancel
    itself. At most `max_cancels` cancels of unknown jobs are remembered.
    """

    def __init__(self, bus: Bus, withdraw: Callable[[PulledJob], None], *, max_cancels: int) -> None:
        self.bus = bus
        self.jobs: dict[str, PulledJob] = {}
        self.cancels = CancelRegistry(bus, self._cancel, limit=max_cancels)
        self._withdraw = withdraw
        self._unsettled: list[tuple[PulledJob, OrchestraError | None]] = []
        """Jobs that ended while NATS was away; acknowledged when it is back."""

    def __iter__(self) -> Iterator[PulledJob]:
        return iter(self.jobs.values())

    async def start(self) -> None:
        await self.cancels.start()
        self.bus.on_reconnect += [self._acknowledge_late, self.extend_ack_wait]

    async def stop(self) -> None:
        for callback in (self._acknowledge_late, self.extend_ack_wait):
            if callback in self.bus.on_reconnect:
                self.bus.on_reconnect.remove(callback)
        await self.cancels.stop()

    @property
    def unsettled(self) -> int:
        """The number of jobs that ended while NATS was away and are not acknowledged yet."""
        return len(self._unsettled)

    def waiting_longer_than(self, seconds: float) -> list[PulledJob]:
        """Jobs that wait for a node and were pulled more than `seconds` ago."""
        pulled_before = time.monotonic() - seconds
        return [job for job in self if job.waits and job.received_at < pulled_before]

    def waiting(self) -> Iterator[Waiting]:
        """The queue of each job that is on no node, and when the job was stored there."""
        for job in self:
            if not job.on_node:
                yield GenerationQueue(job.priority, job.requested_model), job.delivery.stored_at

    def add(self, delivery: Delivery) -> PulledJob | None:
        """The new job of a delivery; None for an invalid message, or when the job is here already."""
        try:
            job = PulledJob.from_delivery(self.bus, delivery)
        except ValueError as error:
            log.warning("a message on %s is not a generation: %s", delivery.message.subject, error)
            delivery.settle(b"+TERM not a generation")
            return None
        present = self.jobs.get(job.id)
        if present is not None:  # NATS missed our keep-alive: from now on this delivery is the one to settle
            present.delivery, present.attempt = delivery, delivery.attempt
            return None
        self.jobs[job.id] = job
        job.cancelled = job.id in self.cancels
        return job

    def give_back(self, job: PulledJob) -> None:
        """Return a job to the queue."""
        job.settled = True
        job.stop_timer()
        del self.jobs[job.id]
        try:
            job.delivery.settle(b"-NAK")
        except BusUnavailable as error:
            log.debug("generation %s comes back after its ack_wait: %s", job.id, error)

    def settle(self, job: PulledJob, error: OrchestraError | None) -> None:
        """End a job: publish an `error` that no node has published, and acknowledge the message."""
        job.settled = True
        job.stop_timer()
        self.jobs.pop(job.id, None)
        self.cancels.forget(job.id)
        if job.superseded:
            log.info("generation %s belongs to another dispatcher now", job.id)
            ended(job.model, "superseded").inc()
            return
        ended(job.model, error.code if error else "ok").inc()
        self._acknowledge(job, error)

    def extend_ack_wait(self) -> None:
        """Tell NATS that all jobs are in progress, so that it does not deliver them again."""
        try:
            for job in self:
                job.delivery.settle(b"+WPI")
        except BusUnavailable as error:
            log.debug("cannot keep generations from redelivery: %s", error)

    def _acknowledge(self, job: PulledJob, error: OrchestraError | None) -> None:
        try:
            caller_left = isinstance(error, Cancelled) and not isinstance(error, CancelledByOperator)
            if error is not None and not caller_left:
                end = GenerationEnd(finish=Finish(reason="error", model=job.model), error=error.body())
                self.bus.post(StreamAddress(job.id).subject, encode_event(OUT_OF_BAND, end))
            job.delivery.settle(b"+ACK")
        except BusUnavailable:
            self._unsettled.append((job, error))

    def _acknowledge_late(self) -> None:
        late, self._unsettled = self._unsettled, []
        for job, error in late:
            self._acknowledge(job, error)

    def _cancel(self, job_id: str, at_ns: int) -> bool:
        job = self.jobs.get(job_id)
        if job is None:
            return False
        job.cancelled = True
        job.scope.close(at_ns)
        if not job.on_node:
            self._withdraw(job)
        return True


async def dead_letter_job(job: PulledJob) -> InternalError:
    """Move a generation that no dispatcher has survived to the dead letters; returns the error for its
    reader."""
    error = InternalError(f"given up after {job.attempt - 1} deliveries without an end")
    try:
        await dead_letter_delivery(job.delivery, error)
    except OrchestraError as failure:  # the reader gets the error in any case, instead of its deadline
        log.error("generation %s was given up and could not be stored as a dead letter: %s", job.id, failure)
    return error
