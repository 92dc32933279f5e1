"""The end of a job, told everywhere it has to be: result, webhook, record, event.

Each part may be repeated, so that whoever finds a recorded result whose teller died tells the rest.
"""

from __future__ import annotations

import logging

from pydantic_core import to_json

from actors.bus.bus import Bus
from actors.bus.jetstream import enqueue
from actors.jobs.job_json import summary
from actors.jobs.metrics import JOBS_ENDED
from actors.jobs.records import MESSAGE_ID, ROUND_HEADER, JobRecord, JobResult, event_subject
from actors.jobs.store import Ledger
from actors.streams.client import ID_HEADER
from orchestration.errors import OrchestraError, QueueFull
from orchestration.messages import Wire

log = logging.getLogger(__name__)

WEBHOOKS_SUBJECT = "webhooks.job"


class WebhookCall(Wire):
    """Tell the job's webhook how this round of it ended."""

    id: str
    round: int


async def settle(bus: Bus, ledger: Ledger, result: JobResult) -> JobResult:
    """Record the result unless there is one; returns the one that counts, and tells of it.

    Raises `QueueFull` when a bucket or the queue of webhooks is full, and `BusUnavailable`: settle it
    again later.
    """
    counts = await ledger.settle(result)
    await tell(bus, ledger, counts)
    return counts


async def tell(bus: Bus, ledger: Ledger, result: JobResult) -> None:
    """What follows from a recorded result, as far as it has not been done."""
    record = await ledger.record(result.id)
    if record is None or record.round != result.round or record.status.final:
        return
    if record.webhook:
        call = WebhookCall(id=record.id, round=record.round)
        headers = {ID_HEADER: record.id, ROUND_HEADER: str(record.round), MESSAGE_ID: record.message_id}
        await enqueue(bus, WEBHOOKS_SUBJECT, call.model_dump_json().encode(), headers)

    def ended(present: JobRecord) -> JobRecord | None:
        if present.round != result.round or present.status.final:
            return None
        return present.model_copy(
            update={
                "status": result.status,
                "last_error": result.ended.error,
                "trace_id": result.ended.trace_id or present.trace_id,
            }
        )

    try:
        changed = await ledger.change(result.id, ended)
    except QueueFull as error:  # the result is what counts; the list shows the old status
        log.warning("the record of %s stays as it was: %s", result.id, error)
        return
    if changed is not None:
        JOBS_ENDED.labels(result.status.value).inc()
        announce(bus, changed)


def announce(bus: Bus, record: JobRecord) -> None:
    """Say the job's status to whoever follows it. Nobody relies on it: the record is there to ask for."""
    try:
        bus.post(event_subject(record.id), to_json(summary(record)))
    except OrchestraError as error:
        log.debug("nobody hears of %s: %s", record.id, error)
