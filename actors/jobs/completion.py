"""The end of a job, told everywhere it has to be: result, webhook, record, event.

Each part may be repeated, so that whoever finds a recorded result whose teller died tells the rest.
"""

from __future__ import annotations

import logging

from pydantic_core import to_json

from actors.bus.bus import Bus
from actors.bus.jetstream import enqueue
from actors.jobs.job_json import job_summary
from actors.jobs.metrics import JOBS_ENDED
from actors.jobs.records import MESSAGE_ID, RETRY_HEADER, JobRecord, JobResult, event_subject
from actors.jobs.store import JobStore
from actors.streams.client import ID_HEADER
from orchestration.errors import OrchestraError, QueueFull
from orchestration.messages import Wire

log = logging.getLogger(__name__)

WEBHOOKS_SUBJECT = "webhooks.job"


class WebhookCall(Wire):
    """Tell the job's webhook how this round of it ended."""

    id: str
    retry_number: int


async def record_result(bus: Bus, store: JobStore, result: JobResult) -> JobResult:
    """Record the result unless there is one; returns the one that counts, and tells of it.

    Raises `QueueFull` when a bucket or the queue of webhooks is full, and `BusUnavailable`: settle it
    again later.
    """
    counts = await store.settle(result)
    await publish_completion(bus, store, counts)
    return counts


async def publish_completion(bus: Bus, store: JobStore, result: JobResult) -> None:
    """What follows from a recorded result, as far as it has not been done."""
    record = await store.record(result.id)
    if record is None or record.retry_number != result.retry_number or record.status.final:
        return
    if record.webhook:
        call = WebhookCall(id=record.id, retry_number=record.retry_number)
        headers = {
            ID_HEADER: record.id,
            RETRY_HEADER: str(record.retry_number),
            MESSAGE_ID: record.message_id,
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
        changed = await store.change(result.id, ended)
    except QueueFull as error:  # the result is what counts; the list shows the old status
        log.warning("the record of %s stays as it was: %s", result.id, error)
        return
    if changed is not None:
        JOBS_ENDED.labels(result.status.value).inc()
        publish_status(bus, changed)


def publish_status(bus: Bus, record: JobRecord) -> None:
    """Say the job's status to whoever follows it. Nobody relies on it: the record is there to ask for."""
    try:
        bus.post(event_subject(record.id), to_json(job_summary(record)))
    except OrchestraError as error:
        log.debug("nobody hears of %s: %s", record.id, error)
