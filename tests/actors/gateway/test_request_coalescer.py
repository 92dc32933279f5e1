"""Followers of one generation: those that come late, read slowly, leave, or hear of an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from actors.gateway.request_coalescer import RequestCoalescer, SharedStream, Source
from orchestration.errors import BackendFailed, DeadlineExceeded, InternalError, ShuttingDown
from orchestration.messages import Finish, GenerationEnd, StreamEvent, TextDelta
from orchestration.response_cache import SlowConsumer
from tests.fixtures.eventually import eventually

KEY = "k"
EVENT_BYTES = 1100


@pytest.fixture
async def flights() -> AsyncIterator[RequestCoalescer]:
    flights = RequestCoalescer(max_stream_bytes=20 * EVENT_BYTES, max_total_bytes=100 * EVENT_BYTES)
    yield flights
    await flights.stop()
    assert len(flights) == 0


class Script:
    """A source that says what is put into it, and remembers how it ended."""

    def __init__(self) -> None:
        self.say: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        self.closed = False
        self.finished = 0

    def begin(self, flights: RequestCoalescer, key: str = KEY) -> SharedStream:
        return flights.begin(key, lambda shared: self.source(), self.finish)

    def finish(self) -> None:
        self.finished += 1

    async def source(self) -> Source:
        try:
            while True:
                said = await self.say.get()
                if isinstance(said, Exception):
                    raise said
                if said is None:
                    yield GenerationEnd(finish=Finish(reason="stop"))
                    return
                yield TextDelta(text=f"{said} ".ljust(100, "."))
        finally:
            self.closed = True


async def hear(events: AsyncGenerator[StreamEvent, None], heard: list[int]) -> None:
    """Read to the end."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta):
                heard.append(int(event.text.split()[0]))  # noqa: PERF401 - others look while it grows


async def test_a_slow_reader_holds_up_nobody_and_is_told_when_it_is_too_slow(
    flights: RequestCoalescer,
) -> None:
    script = Script()
    shared = script.begin(flights)
    slow = flights.follow(shared, 60)
    heard: list[int] = []
    quick = asyncio.create_task(hear(flights.follow(shared, 60), heard))
    script.say.put_nowait(0)
    first = await anext(slow)
    assert isinstance(first, TextDelta)
    for number in range(1, 200):
        script.say.put_nowait(number)
    script.say.put_nowait(None)
    await quick
    assert heard == list(range(200))
    assert flights.size <= 20 * EVENT_BYTES
    with pytest.raises(SlowConsumer, match="too slow"):
        await anext(slow)
    await slow.aclose()
    await eventually(lambda: flights.size == 0)
    assert script.finished == 1


async def test_who_comes_late_hears_the_beginning_and_then_follows(flights: RequestCoalescer) -> None:
    script = Script()
    shared = script.begin(flights)
    early, late = list[int](), list[int]()
    first = asyncio.create_task(hear(flights.follow(shared, 60), early))
    script.say.put_nowait(1)
    script.say.put_nowait(2)
    await eventually(lambda: early == [1, 2])
    assert flights.find(KEY) is shared
    second = asyncio.create_task(hear(flights.follow(shared, 60), late))
    await eventually(lambda: late == [1, 2])
    script.say.put_nowait(3)
    script.say.put_nowait(None)
    await asyncio.gather(first, second)
    assert early == late == [1, 2, 3]
    assert flights.find(KEY) is None


async def test_one_that_grew_too_long_takes_no_more_followers_and_goes_on(flights: RequestCoalescer) -> None:
    script, heard = Script(), list[int]()
    follower = asyncio.create_task(hear(flights.follow(script.begin(flights), 60), heard))
    for number in range(30):
        script.say.put_nowait(number)
    await eventually(lambda: len(heard) == 30)
    assert flights.find(KEY) is None
    script.say.put_nowait(None)
    await follower
    assert heard == list(range(30))


async def test_all_of_them_together_are_bounded(flights: RequestCoalescer) -> None:
    scripts = [Script() for _ in range(12)]
    heard: list[list[int]] = [[] for _ in scripts]
    followers = []
    for number, script in enumerate(scripts):
        shared = script.begin(flights, f"k{number}")
        followers.append(asyncio.create_task(hear(flights.follow(shared, 60), heard[number])))
        for each in range(15):
            script.say.put_nowait(each)
    await eventually(lambda: all(len(each) == 15 for each in heard))
    assert flights.size <= 100 * EVENT_BYTES
    open_ = sum(flights.find(f"k{number}") is not None for number in range(12))
    assert 0 < open_ < 12
    for script in scripts:
        script.say.put_nowait(None)
    await asyncio.gather(*followers)
    await eventually(lambda: flights.size == 0)


async def test_everybody_hears_the_error_after_what_was_said(flights: RequestCoalescer) -> None:
    script = Script()
    shared = script.begin(flights)
    heard: list[list[int]] = [[], []]
    followers = [asyncio.create_task(hear(flights.follow(shared, 60), each)) for each in heard]
    await eventually(lambda: len(shared.buffer.followers) == 2)
    script.say.put_nowait(1)
    script.say.put_nowait(BackendFailed("it broke"))
    results = await asyncio.gather(*followers, return_exceptions=True)
    assert [type(result) for result in results] == [BackendFailed, BackendFailed]
    assert results[0] is not results[1]
    assert heard == [[1], [1]]
    assert script.finished == 1


async def test_a_defect_of_the_source_ends_it_for_everybody(
    flights: RequestCoalescer, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script()
    follower = asyncio.create_task(hear(flights.follow(script.begin(flights), 60), []))
    script.say.put_nowait(ZeroDivisionError("no"))
    with pytest.raises(InternalError):
        await follower
    assert "a shared generation failed" in caplog.text


async def test_the_last_to_leave_cancels_it_and_the_next_begins_anew(flights: RequestCoalescer) -> None:
    script = Script()
    shared = script.begin(flights)
    first, second = (asyncio.create_task(hear(flights.follow(shared, 60), [])) for _ in range(2))
    await eventually(lambda: len(shared.buffer.followers) == 2)
    first.cancel()
    await asyncio.wait([first])
    assert flights.find(KEY) is shared
    second.cancel()
    await asyncio.wait([second])
    assert flights.find(KEY) is None
    await eventually(lambda: script.closed)
    assert script.finished == 1


async def test_one_that_is_left_before_it_began_is_finished_all_the_same(flights: RequestCoalescer) -> None:
    script = Script()
    events = flights.follow(script.begin(flights), 0)
    with pytest.raises(DeadlineExceeded):
        await anext(events)
    await eventually(lambda: script.finished == 1)


async def test_a_deadline_is_its_followers_own(flights: RequestCoalescer) -> None:
    script, heard = Script(), list[int]()
    shared = script.begin(flights)
    patient = asyncio.create_task(hear(flights.follow(shared, 60), heard))
    script.say.put_nowait(1)
    with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
        await hear(flights.follow(shared, 0.1), [])
    script.say.put_nowait(2)
    script.say.put_nowait(None)
    await patient
    assert heard == [1, 2]


async def test_when_the_gateway_stops_followers_are_told(flights: RequestCoalescer) -> None:
    script = Script()
    shared = script.begin(flights)
    follower = asyncio.create_task(hear(flights.follow(shared, 60), []))
    await eventually(lambda: shared.buffer.followers)
    await flights.stop()
    with pytest.raises(ShuttingDown):
        await follower
    assert script.finished == 1
