"""Watching a run: late, slowly, and over the death of its coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.agents.run_event_history import RunEventHistory
from actors.agents.run_event_publisher import ATTEMPT_SEQS, RunEventPublisher
from actors.bus.bus import Bus
from actors.streams.run_events import NoSuchRun, RecordedRunEvent, RunEventReader
from orchestration.errors import Unavailable
from tests.actors.agents.clusters import connection
from tests.fixtures.nats import RunningNats


@pytest.fixture
async def bus(nats: RunningNats) -> AsyncIterator[Bus]:
    async with connection(nats.url, "watching") as bus:
        yield bus


@asynccontextmanager
async def coordinator(url: str) -> AsyncIterator[tuple[Bus, RunEventHistory]]:
    async with connection(url, "telling") as bus:
        history = RunEventHistory(bus)
        await history.start()
        await bus.flush()
        yield bus, history
        await history.stop()


async def never() -> bool:
    return False


async def always() -> bool:
    return True


async def rest(watch: RunEventReader) -> list[RecordedRunEvent]:
    return [told async for told in watch.events(never)]


async def test_a_reader_that_is_too_slow_loses_nothing(nats: RunningNats, bus: Bus) -> None:
    async with coordinator(nats.url) as (theirs, history):
        run = RunEventPublisher(theirs, "a.1")
        history.begin(run)
        run.add("started", {"pattern": "x"})
        async with RunEventReader(bus, "a.1", max_buffered=4) as watch:
            for number in range(50):
                run.add("vote", {"number": number})
                run.flush()
            run.add("ended", {})
            run.flush()
            await theirs.flush()
            await bus.flush()
            assert [told.seq for told in await rest(watch)] == list(range(52))


async def test_who_watches_goes_on_with_the_next_coordinator(nats: RunningNats, bus: Bus) -> None:
    async with coordinator(nats.url) as (heirs, heir):
        async with coordinator(nats.url) as (theirs, history):
            run = RunEventPublisher(theirs, "a.2", caller="alice")
            history.begin(run)
            run.add("started", {"attempt": 1})
            watch = RunEventReader(bus, "a.2", reply_timeout_s=0.1, max_quiet_s=0.1)
            await watch.__aenter__()
            assert watch.owner == "alice"
            events = watch.events(always)
            assert (await anext(events)).seq == 0
        again = RunEventPublisher(heirs, "a.2", attempt=2)
        again.add("started", {"attempt": 2})
        again.add("ended", {})
        again.flush()  # nobody hears it live
        heir.begin(again)
        assert [told.seq async for told in events] == [ATTEMPT_SEQS, ATTEMPT_SEQS + 1]
        await watch.__aexit__(None, None, None)


async def test_a_run_that_is_gone_ends_the_watch(nats: RunningNats, bus: Bus) -> None:
    async with RunEventReader(bus, "a.3", reply_timeout_s=0.1, max_quiet_s=0.1) as watch:
        assert watch.owner is None
        with pytest.raises(NoSuchRun, match=r"a\.3"):
            await rest(watch)


async def test_a_watch_that_is_told_to_end_raises_why(nats: RunningNats, bus: Bus) -> None:
    async with coordinator(nats.url) as (theirs, history):
        history.begin(RunEventPublisher(theirs, "a.4"))
        async with RunEventReader(bus, "a.4") as watch:
            reading = asyncio.ensure_future(rest(watch))
            watch.end(Unavailable("shutting down"))
            with pytest.raises(Unavailable, match="shutting down"):
                await reading


async def test_what_is_kept_of_runs_is_bounded_and_the_oldest_is_forgotten_first(
    nats: RunningNats, bus: Bus
) -> None:
    async with coordinator(nats.url) as (theirs, history):
        history.max_bytes = 2_500
        for number in range(4):
            run = RunEventPublisher(theirs, f"b.{number}", max_bytes=1_000)
            history.begin(run)
            for at in range(100):
                run.add("vote", {"number": at})
            run.add("ended", {})
            history.end(run)
        for number, known in enumerate((False, False, True, True)):
            async with RunEventReader(bus, f"b.{number}", reply_timeout_s=0.2) as watch:
                assert (watch.owner is not None) == known
                if known:
                    told = await rest(watch)
                    assert told[-1].seq == 100
                    assert 1 < len(told) < 20


async def test_many_events_at_once_fit_their_messages(nats: RunningNats, bus: Bus) -> None:
    async with coordinator(nats.url) as (theirs, history):
        run = RunEventPublisher(theirs, "c.1")
        history.begin(run)
        async with RunEventReader(bus, "c.1") as watch:
            for _ in range(30):
                run.add("position", {"text": "x" * 100_000})
            run.add("ended", {})
            run.flush()
            assert [told.seq for told in await rest(watch)] == list(range(31))
