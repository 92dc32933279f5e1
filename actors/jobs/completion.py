"""Completes a job: stores its result, queues its webhook call, updates its record, publishes its status.

Every step may be repeated. When a process dies in between, the next one that finds the result does the rest.
"""

from __future__ import annotations

import logging
import time

from pydantic_core import to_json

from actors.bus.bus import Bus
from actors.bus.jetstream import MESSAGE_ID_HEADER, enqueue
from actors.bus.subjects import StreamAddress
from actors.jobs.job_json import job_summary
from actors.jobs.metrics import JOB_TOKENS, JOBS_ENDED
from actors.jobs.records import RETRY_HEADER, JobRecord, JobResult, JobStatus, event_subject
from actors.jobs.store import JobStore
from actors.streams.client import ID_HEADER
from orchestration.errors import OrchestraError, QueueFull
from orchestration.messages import Finish, RunEnd, Wire

log = logging.getLogger(__name__)

WEBHOOKS_SUBJECT = "webhooks.job"


class WebhookCall(Wire):
    """A message of the queue of webhooks: the retry `retry_number` of job `id` has ended."""

    id: str
    retry_number: int


async def record_result(bus: Bus, store: JobStore, result: JobResult) -> JobResult:
    """Store the result unless there is one already, and publish the stored one. Returns the stored one.

    Raises `QueueFull` when a bucket or the queue of webhooks is full, and `BusUnavailable`. Call it again
    later then.
    """
    stored = await store.create_result(result)
    await publish_completion(bus, store, stored)
    return stored


async def record_cancelled(bus: Bus, store: JobStore, record: JobRecord, error: OrchestraError) -> bool:
    """Complete a job that has not ended as cancelled, with `error`. Returns whether that is how it ended.
    Raises as `record_result`."""
    result = JobResult(
        id=record.id,
        retry_number=record.retry_number,
        status=JobStatus.CANCELLED,
        ended=RunEnd(finish=Finish(reason="cancelled"), error=error.body(), trace_id=record.trace_id),
        finished_at=time.time(),
    )
    return (await record_result(bus, store, result)).status is JobStatus.CANCELLED


async def cancel_job(bus: Bus, store: JobStore, record: JobRecord, error: OrchestraError) -> bool:
    """Complete a job as `record_cancelled` does, and stop its work wherever it is; its spans end now."""
    cancelled = await record_cancelled(bus, store, record, error)
    if cancelled:
        await bus.publish(StreamAddress(record.id).cancel, b"%d" % time.time_ns())
    return cancelled


async def publish_completion(bus: Bus, store: JobStore, result: JobResult) -> None:
    """Do what follows from a stored result, unless it was done before."""
    record = await store.record(result.id)
    if record is None or record.retry_number != result.retry_number or record.status.final:
        return
    if record.webhook:
        call = WebhookCall(id=record.id, retry_number=record.retry_number)
        headers = {
            ID_HEADER: record.id,
            RETRY_HEADER: str(record.retry_number),
            MESSAGE_ID_HEADER: record.message_id,
        }
        await enqueue(bus, WEBHOOKS_SUBJECT, call.model_dump_json().encode(), headers)

    def ended(present: JobRecord) -> JobRecord | None:
        if present.retry_number != result.retry_number or present.status.final:
            return None
        return present.model_copy(
            update={
                "status": result.status,
                "last_error": result.ended.error,
                "trace_id": result.ended.trace_id or present.trace_id,
            }
        )

    try:
        changed = await store.update(result.id, ended)
    except QueueFull as error:  # the result is stored; only the list of jobs shows the old status
        log.warning("could not update the record of %s: %s", result.id, error)
        return
    if changed is not None:
        JOBS_ENDED.labels(result.status.value).inc()
        usage = result.ended.finish.usage
        JOB_TOKENS.labels("prompt").inc(usage.prompt_tokens)
        JOB_TOKENS.labels("completion").inc(usage.completion_tokens)
        JOB_TOKENS.labels("cached").inc(usage.cached_tokens)
        publish_status(bus, changed)


def publish_status(bus: Bus, record: JobRecord) -> None:
    """Publish the job's status for those who watch it. It may be lost: the record has it too."""
    try:
        bus.post(event_subject(record.id), to_json(job_summary(record)))
    except OrchestraError as error:
        log.debug("could not publish the status of %s: %s", record.id, error)
