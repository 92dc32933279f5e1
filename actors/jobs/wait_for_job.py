"""Follows a job to its end: by its events as they come, and by its record where one was missed."""

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
from orchestration.messages import EVENT, Progress

POLL_S = 2.0
"""Between two looks at the record while no event comes: an event is sent once, and not kept."""


async def wait_for_job(bus: Bus, job_id: str, told: Callable[[str], None]) -> dict[str, Any]:
    """The job once it has ended; `told` hears what it is doing.

    NATS or all gateways may go away meanwhile and come back. Raises `NoSuchJob`, and what the first look
    at the job raises.
    """
    job = await jobs_call(bus, "get", {"id": job_id})  # which checks the id
    news = asyncio.Event()

    def changed(message: Message) -> None:
        told(str(from_json(message.data)["status"]))
        news.set()

    def progressed(message: Message) -> None:
        try:
            event = EVENT.validate_json(message.data)
        except ValidationError:
            return
        if isinstance(event, Progress):
            told(event.text)

    events = await bus.subscribe(event_subject(job_id), changed)
    stream = await bus.subscribe(StreamAddress(job_id).subject, progressed)
    try:
        await bus.flush()
        job = await jobs_call(bus, "get", {"id": job_id})
        while not JobStatus(job["status"]).final:
            try:
                async with asyncio.timeout(POLL_S):
                    await news.wait()
            except TimeoutError:
                pass
            news.clear()
            try:
                job = await jobs_call(bus, "get", {"id": job_id})
            except (Unavailable, DeadlineExceeded):  # it comes back, or the caller stops waiting
                continue
        return job
    finally:
        await stream.unsubscribe()
        await events.unsubscribe()
