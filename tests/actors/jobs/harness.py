"""A coordinator of jobs whose every step the test takes itself."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from actors.bus.bus import Bus, BusSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.jetstream import Delivery, Puller
from actors.bus.provision import apply
from actors.bus.subjects import RunQueue
from actors.jobs.attempts import JobAttempts
from actors.jobs.dead_letters import DeadLetterStore
from actors.jobs.records import JobRecord, new_job_id
from actors.jobs.service import JobService, JobSubmission
from actors.jobs.settings import JobsSettings
from actors.runtime.envelope import Envelope
from orchestration.messages import ChatMessage, Finish, JoinedText, Priority, Run, RunEnd, TextDelta, Usage

TRACED = f"00-{'a' * 32}-{'b' * 16}-01"


class JobHarness:
    """The job service, the attempts and the queue between them. The test plays the coordinator."""

    def __init__(self, bus: Bus, settings: JobsSettings) -> None:
        self.bus = bus
        self.service = JobService(bus, max_listed=100)
        self.job_attempts = JobAttempts(bus, settings)
        self.dead_letters = DeadLetterStore(bus)
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self.puller = Puller(
            bus, RunQueue.STREAM, RunQueue.consumer(Priority.STANDARD), self.deliveries.put_nowait
        )

    async def submit(self, text: str = "hello", *, key: str = "", webhook: str = "") -> dict[str, Any]:
        run = Run(
            id=new_job_id(key),
            pattern="single",
            messages=(ChatMessage(role="user", content=text),),
            model="echo",
            priority=Priority.STANDARD,
        )
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        submission = JobSubmission(work=run, model="echo", fingerprint=fingerprint, webhook=webhook)
        job, _ = await self.service.submit(submission, Envelope(trace=TRACED))
        return job

    async def take(self, job_id: str) -> tuple[JobRecord | None, Delivery]:
        """Pull the next message, and begin its attempt."""
        self.puller.request(1)
        async with asyncio.timeout(30):
            delivery = await self.deliveries.get()
        return await self.job_attempts.begin(job_id, delivery), delivery

    async def succeed(self, record: JobRecord, delivery: Delivery, text: str) -> None:
        ended = RunEnd(finish=Finish(reason="stop", usage=Usage(completion_tokens=1), model="echo"))
        partial = JoinedText()
        partial.add(TextDelta(text=text))
        await self.job_attempts.succeed(record, delivery, partial, ended)


@asynccontextmanager
async def job_harness(url: str, settings: JobsSettings) -> AsyncIterator[JobHarness]:
    bus = await Bus.connect(BusSettings(url=url), name="books")
    try:
        await apply(bus, shipped_declaration())
        opened = JobHarness(bus, settings)
        await opened.puller.start()
        yield opened
        await opened.puller.stop()
    finally:
        await bus.close()


def answer_of(job: dict[str, Any]) -> str:
    text: str = job["result"]["choices"][0]["message"]["content"]
    return text
