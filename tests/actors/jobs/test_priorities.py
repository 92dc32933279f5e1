"""A thousand jobs in the queue: who waits for an answer goes first, batch work last, and it goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings, Message
from actors.runtime.envelope import Envelope
from actors.runtime.service_client import chat as ask
from actors.runtime.service_client import jobs_call
from tests.actors.jobs.client import chat
from tests.actors.jobs.conftest import QUICK
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually

BATCH, STANDARD, CHATS = 1_000, 150, 12
LENGTHS = (3, 7, 4, 9, 5)
"""Tokens: of several lengths, so that slots become free one after another."""


@pytest.fixture
def paced() -> Iterator[Cluster]:
    backend = EchoBackend(EchoSettings(models=("echo",), slots=6, speed=200))
    with running_cluster([("paced", backend)], agents=True, jobs=QUICK) as running:
        yield running


async def test_a_thousand_batch_jobs_wait_behind_other_jobs_and_still_progress(paced: Cluster) -> None:
    """`ended` has what ended, in order: `i` for a chat, and the first letters of the priorities of jobs."""
    ended: list[str] = []

    def on_event(message: Message) -> None:
        job = json.loads(message.data)
        if job["status"] == "succeeded":
            ended.append(job["priority"][0])

    bus = await Bus.connect(BusSettings(url=paced.nats.url), name="crowd")
    try:
        await bus.subscribe("events.job.*", on_event)

        async def submit(number: int, priority: str) -> None:
            body = chat(max_tokens=LENGTHS[number % 5], orchestra={"priority": priority})
            await jobs_call(bus, "submit", body)

        await asyncio.gather(*(submit(number, "batch") for number in range(BATCH)))
        await eventually(lambda: ended.count("b") > 10)
        await asyncio.gather(*(submit(number, "standard") for number in range(STANDARD)))
        before = len(ended)
        for _ in range(CHATS):
            async with aclosing(ask(bus, chat(max_tokens=3), Envelope.within(30))) as chunks:
                async for _chunk in chunks:
                    pass
            ended.append("i")
        during = ended[before:]
        jobs_a_chat = (len(during) - CHATS) / CHATS
        assert jobs_a_chat < 24, f"{jobs_a_chat:.0f} jobs ended while one chat waited, of 16 at work"
        await eventually(lambda: ended.count("s") == STANDARD, within_s=40)
        while_standard = ended[before:].count("b")
        assert 0 < while_standard < STANDARD, "batch work takes its share, and no more"
        assert ended.count("b") < BATCH, "batch work is last"
        await eventually(lambda: ended.count("b") == BATCH, within_s=60)
    finally:
        await bus.close()
