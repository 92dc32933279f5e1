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
async def coalescer() -> AsyncIterator[RequestCoalescer]:
    coalescer = RequestCoalescer(max_stream_bytes=20 * EVENT_BYTES, max_total_bytes=100 * EVENT_BYTES)
    yield coalescer
    await coalescer.stop()
    assert len(coalescer) == 0


class Script:
    """A source that says what is put into it, and remembers how it ended."""

    def __init__(self) -> None:
        self.say: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        self.closed = False
        self.finished = 0

    def begin(self, coalescer: RequestCoalescer, key: str = KEY) -> SharedStream:
        return coalescer.begin(key, lambda shared: self.source(), self.finish)

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


async def test_a_slow_follower_delays_no_other_and_fails_when_it_is_too_slow(
    coalescer: RequestCoalescer,
) -> None:
    script = Script()
    shared = script.begin(coalescer)
    slow = coalescer.follow(shared, 60)
    heard: list[int] = []
    quick = asyncio.create_task(hear(coalescer.follow(shared, 60), heard))
    script.say.put_nowait(0)
    first = await anext(slow)
    assert isinstance(first, TextDelta)
    for number in range(1, 200):
        script.say.put_nowait(number)
    script.say.put_nowait(None)
    await quick
    assert heard == list(range(200))
    assert coalescer.size <= 20 * EVENT_BYTES
    with pytest.raises(SlowConsumer, match="too slow"):
        await anext(slow)
    await slow.aclose()
    await eventually(lambda: coalescer.size == 0)
    assert script.finished == 1


async def test_a_late_follower_gets_the_beginning_and_then_follows(coalescer: RequestCoalescer) -> None:
    script = Script()
    shared = script.begin(coalescer)
    early, late = list[int](), list[int]()
    first = asyncio.create_task(hear(coalescer.follow(shared, 60), early))
    script.say.put_nowait(1)
    script.say.put_nowait(2)
    await eventually(lambda: early == [1, 2])
    assert coalescer.find(KEY) is shared
    second = asyncio.create_task(hear(coalescer.follow(shared, 60), late))
    await eventually(lambda: late == [1, 2])
    script.say.put_nowait(3)
    script.say.put_nowait(None)
    await asyncio.gather(first, second)
    assert early == late == [1, 2, 3]
    assert coalescer.find(KEY) is None


async def test_a_stream_that_is_too_long_takes_no_more_followers_and_continues(
    coalescer: RequestCoalescer,
) -> None:
    script, heard = Script(), list[int]()
    follower = asyncio.create_task(hear(coalescer.follow(script.begin(coalescer), 60), heard))
    for number in range(30):
        script.say.put_nowait(number)
    await eventually(lambda: len(heard) == 30)
    assert coalescer.find(KEY) is None
    script.say.put_nowait(None)
    await follower
    assert heard == list(range(30))


async def test_the_bytes_of_all_streams_together_are_limited(coalescer: RequestCoalescer) -> None:
    scripts = [Script() for _ in range(12)]
    heard: list[list[int]] = [[] for _ in scripts]
    followers = []
    for number, script in enumerate(scripts):
        shared = script.begin(coalescer, f"k{number}")
        followers.append(asyncio.create_task(hear(coalescer.follow(shared, 60), heard[number])))
        for each in range(15):
            script.say.put_nowait(each)
    await eventually(lambda: all(len(each) == 15 for each in heard))
    assert coalescer.size <= 100 * EVENT_BYTES
    open_ = sum(coalescer.find(f"k{number}") is not None for number in range(12))
    assert 0 < open_ < 12
    for script in scripts:
        script.say.put_nowait(None)
    await asyncio.gather(*followers)
    await eventually(lambda: coalescer.size == 0)


async def test_every_follower_gets_the_error_after_the_events(coalescer: RequestCoalescer) -> None:
    script = Script()
    shared = script.begin(coalescer)
    heard: list[list[int]] = [[], []]
    followers = [asyncio.create_task(hear(coalescer.follow(shared, 60), each)) for each in heard]
    await eventually(lambda: len(shared.buffer.followers) == 2)
    script.say.put_nowait(1)
    script.say.put_nowait(BackendFailed("it broke"))
    results = await asyncio.gather(*followers, return_exceptions=True)
    assert [type(result) for result in results] == [BackendFailed, BackendFailed]
    assert results[0] is not results[1]
    assert heard == [[1], [1]]
    assert script.finished == 1


async def test_a_defect_of_the_source_ends_it_for_everybody(
    coalescer: RequestCoalescer, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script()
    follower = asyncio.create_task(hear(coalescer.follow(script.begin(coalescer), 60), []))
    script.say.put_nowait(ZeroDivisionError("no"))
    with pytest.raises(InternalError):
        await follower
    assert "a shared generation failed" in caplog.text


async def test_the_last_follower_to_leave_cancels_the_stream_and_the_next_begins_another(
    coalescer: RequestCoalescer,
) -> None:
    script = Script()
    shared = script.begin(coalescer)
    first, second = (asyncio.create_task(hear(coalescer.follow(shared, 60), [])) for _ in range(2))
    await eventually(lambda: len(shared.buffer.followers) == 2)
    first.cancel()
    await asyncio.wait([first])
    assert coalescer.find(KEY) is shared
    second.cancel()
    await asyncio.wait([second])
    assert coalescer.find(KEY) is None
    await eventually(lambda: script.closed)
    assert script.finished == 1


async def test_a_stream_that_is_left_before_it_starts_is_finished_too(coalescer: RequestCoalescer) -> None:
    script = Script()
    events = coalescer.follow(script.begin(coalescer), 0)
    with pytest.raises(DeadlineExceeded):
        await anext(events)
    await eventually(lambda: script.finished == 1)


async def test_each_follower_has_its_own_deadline(coalescer: RequestCoalescer) -> None:
    script, heard = Script(), list[int]()
    shared = script.begin(coalescer)
    patient = asyncio.create_task(hear(coalescer.follow(shared, 60), heard))
    script.say.put_nowait(1)
    with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
        await hear(coalescer.follow(shared, 0.1), [])
    script.say.put_nowait(2)
    script.say.put_nowait(None)
    await patient
    assert heard == [1, 2]


async def test_followers_get_an_error_when_the_gateway_stops(coalescer: RequestCoalescer) -> None:
    script = Script()
    shared = script.begin(coalescer)
    follower = asyncio.create_task(hear(coalescer.follow(shared, 60), []))
    await eventually(lambda: shared.buffer.followers)
    await coalescer.stop()
    with pytest.raises(ShuttingDown):
        await follower
    assert script.finished == 1
