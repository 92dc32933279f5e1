"""Waits for the end of a job: by its events, and by its record in case an event was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from actors.bus.bus import Bus, Message
from actors.bus.subjects import StreamAddress
from actors.jobs.records import JobStatus, event_subject
from actors.runtime.service_client import jobs_call
from orchestration.errors import DeadlineExceeded, Unavailable
from orchestration.messages import Progress, decode_events

POLL_S = 2.0
"""How often the record is read while no event arrives: events may be lost."""


async def wait_for_job(bus: Bus, job_id: str, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Return the job when it has ended. `on_progress` is called with each new status and progress text.

    NATS and the gateways may be away meanwhile. Raises what the first request for the job raises, such as the
    gateway's `no_such_job`.
    """
    job = await jobs_call(bus, "get", {"id": job_id})  # the gateway checks the id
    changed = asyncio.Event()

    def on_status(message: Message) -> None:
        on_progress(str(from_json(message.data)["status"]))
        changed.set()

    def on_event(message: Message) -> None:
        try:
            event = decode_events(message.data)[-1].event
        except ValidationError:
            return
        if isinstance(event, Progress):
            on_progress(event.text)

    events = await bus.subscribe(event_subject(job_id), on_status)
    stream = await bus.subscribe(StreamAddress(job_id).subject, on_event)
    try:
        await bus.flush()
        job = await jobs_call(bus, "get", {"id": job_id})
        while not JobStatus(job["status"]).final:
            try:
                async with asyncio.timeout(POLL_S):
                    await changed.wait()
            except TimeoutError:
                pass
            changed.clear()
            try:
                job = await jobs_call(bus, "get", {"id": job_id})
            except (Unavailable, DeadlineExceeded):  # try again until the caller stops waiting
                continue
        return job
    finally:
        await stream.unsubscribe()
        await events.unsubscribe()
