from __future__ import annotations

import asyncio
from contextlib import aclosing
from uuid import uuid4

import pytest

from actors.bus.bus import Bus, BusSettings, Message
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply
from actors.bus.subjects import StreamAddress
from actors.runtime.envelope import Envelope
from actors.streams.channel import OUT_OF_BAND
from actors.streams.client import StreamClient
from actors.streams.reader import StreamLimits
from actors.streams.writer import StreamWriter
from orchestration.errors import (
    BackendFailed,
    BusUnavailable,
    DeadlineExceeded,
    InternalError,
    NodeLost,
    QueueFull,
    ShuttingDown,
    Unavailable,
)
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    CompletionGeneration,
    EventFrame,
    Finish,
    GenerationEnd,
    TextDelta,
    encode_event,
)
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import local_cluster
from tests.fixtures.nats import RunningNats
from tests.fixtures.reading import END, PATIENT, Reading, deltas, end, streams

__all__ = ["streams"]


async def test_events_come_in_order_and_the_end_is_the_last(streams: StreamClient) -> None:
    reading = Reading(streams)
    await reading.write(*deltas("a", "b", "c"), end(3))
    assert await reading.task == END
    assert reading.text == "abc"
    assert not reading.cancelled


async def test_an_event_that_comes_twice_is_read_once(streams: StreamClient) -> None:
    reading = Reading(streams)
    a, b = deltas("a", "b")
    await reading.write(a, a, b, a, b, end(2))
    await reading.task
    assert reading.text == "ab"


async def test_events_lost_on_the_way_are_sent_again_while_the_stream_is_written_and_after(
    streams: StreamClient, nats_server: RunningNats
) -> None:
    writing = await Bus.connect(BusSettings(url=nats_server.url), name="writing")
    reading = Reading(streams)
    await eventually(lambda: streams.open_streams)
    writer = StreamWriter(writing, StreamAddress(reading.id), lambda: None)
    reads = streams.readers[reading.id]
    really = reads.put

    def deaf(message: Message) -> bool:
        return True

    await writer.write(TextDelta(text="a"))
    await eventually(lambda: reading.text == "a")
    reads.put = deaf  # type: ignore[method-assign]
    await writer.write(TextDelta(text=" b"))
    await writer.flush()
    await streams.bus.flush()
    reads.put = really  # type: ignore[method-assign]
    await writer.write(TextDelta(text=" c"))
    await writer.flush()
    await eventually(lambda: reading.text == "a b c")
    reads.put = deaf  # type: ignore[method-assign]
    await writer.end(END)
    await writing.flush()
    await streams.bus.flush()
    reads.put = really  # type: ignore[method-assign]
    streams._on_reconnect()
    assert (await reading.task).events == 3
    await writing.close()


@pytest.mark.parametrize("late", [EventFrame(5, TextDelta(text="late")), end(5)])
async def test_a_gap_that_stays_is_an_error_that_names_what_is_missing(
    streams: StreamClient, late: EventFrame
) -> None:
    streams.limits = StreamLimits(max_gap_s=0.2)
    reading = Reading(streams)
    await reading.write(*deltas("a"), late)
    with pytest.raises(NodeLost, match="lost events 1 to 4"):
        await reading.task
    await eventually(lambda: reading.cancelled)


async def test_an_end_with_an_error_raises_that_error(streams: StreamClient) -> None:
    reading = Reading(streams)
    error = BackendFailed("it broke").body()
    await reading.write(
        *deltas("a"), EventFrame(1, GenerationEnd(finish=Finish(reason="error"), error=error))
    )
    with pytest.raises(BackendFailed, match="it broke"):
        await reading.task
    await streams.bus.flush()
    assert not reading.cancelled


async def test_whoever_watches_over_a_stream_may_end_it_from_outside(streams: StreamClient) -> None:
    reading = Reading(streams)
    error = NodeLost("node n died").body()
    await reading.write(
        *deltas("a", "b"), EventFrame(OUT_OF_BAND, GenerationEnd(finish=Finish(reason="error"), error=error))
    )
    with pytest.raises(NodeLost, match="node n died"):
        await reading.task


async def test_what_is_no_event_is_a_defect(streams: StreamClient) -> None:
    reading = Reading(streams)
    await eventually(lambda: streams.open_streams)
    await streams.bus.publish(f"stream.{reading.id}", b"rubbish")
    with pytest.raises(InternalError, match="cannot be read"):
        await reading.task


async def test_a_stream_that_does_not_end_in_time_is_cancelled(streams: StreamClient) -> None:
    reading = Reading(streams, within_s=0.1)
    await reading.write(*deltas("a"))
    with pytest.raises(DeadlineExceeded, match="no complete answer"):
        await reading.task
    await eventually(lambda: reading.cancelled)


async def test_a_reader_that_leaves_cancels_the_work(streams: StreamClient) -> None:
    reading = Reading(streams)
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    reading.task.cancel()
    await asyncio.wait({reading.task})
    await eventually(lambda: reading.cancelled == [f"cancel.{reading.id}"])


async def test_of_two_writers_the_first_is_read(streams: StreamClient) -> None:
    reading = Reading(streams)
    await reading.write(*deltas("a", "b"))
    await reading.write(*deltas("a b", " c d"), end(2), writer="second")
    await reading.write(*deltas("c", "d", start=2), end(4))
    assert await reading.task == END
    assert reading.text == "abcd"


async def test_a_second_writer_is_read_whole_where_the_first_wrote_nothing(
    streams: StreamClient,
) -> None:
    reading = Reading(streams)
    await reading.write(*deltas("x", "y"), end(2), writer="second")
    await reading.task
    assert reading.text == "xy"


async def test_a_first_writer_that_falls_silent_is_reported(streams: StreamClient) -> None:
    streams.limits = StreamLimits(max_silence_s=0.2)
    reading = Reading(streams)
    await reading.write(*deltas("a"))
    await reading.write(*deltas("a b"), end(1), writer="second")
    with pytest.raises(NodeLost, match="after some of it was read"):
        await reading.task


async def test_a_reader_that_is_too_slow_is_told_and_its_work_cancelled(streams: StreamClient) -> None:
    streams.limits = StreamLimits(max_buffered=10)
    work = streams.new_id()
    cancelled: list[str] = []
    await streams.bus.subscribe(f"cancel.{work}", lambda message: cancelled.append(message.subject))

    async def send(accepted: str) -> None: ...

    events = streams.follow(work, Envelope.within(60), send)
    first = asyncio.ensure_future(anext(events))
    await eventually(lambda: streams.open_streams)
    for frame in deltas(*"abcdefghijklmnopqrstuvwxyz"):
        await streams.bus.publish(f"stream.{work}", encode_event(frame.seq, frame.event))
    await first
    await streams.bus.flush()

    async def read() -> None:
        async for _ in events:
            pass

    with pytest.raises(Unavailable, match="too slow"):
        await read()
    await eventually(lambda: cancelled)


async def test_a_full_queue_is_told_to_the_asker(streams: StreamClient) -> None:
    model = f"nobody-pulls-{uuid4().hex[:8]}"

    async def ask() -> None:
        generation = ChatGeneration(
            id=streams.new_id(), model=model, messages=(ChatMessage(role="user", content="x"),)
        )
        async with aclosing(streams.stream(generation, Envelope.within(30))) as events:
            async for _ in events:
                pass

    asked = [asyncio.ensure_future(ask()) for _ in range(1001)]
    done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    assert len(done) == 1
    with pytest.raises(QueueFull, match="full"):
        done.pop().result()
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_a_request_that_no_queue_acknowledges_is_given_up_soon_and_not_at_its_deadline(
    own_nats: RunningNats,
) -> None:
    bus = await Bus.connect(BusSettings(url=own_nats.url), name="test")
    await apply(bus, shipped_declaration())
    streams = StreamClient(bus, StreamLimits(accept_timeout_s=0.2))
    await streams.start()
    own_nats.freeze()
    try:
        generation = CompletionGeneration(id=streams.new_id(), model="m", prompt="x")
        with pytest.raises(BusUnavailable, match=r"within 0\.2 s: the NATS server does not answer") as caught:
            await anext(streams.stream(generation, Envelope.within(30)))
        assert caught.value.retry_after_s == 1
    finally:
        own_nats.thaw()
        await streams.stop()
        await bus.close()


async def test_streams_that_are_not_declared_are_said_to_be_missing(own_nats: RunningNats) -> None:
    bus = await Bus.connect(BusSettings(url=own_nats.url), name="test")
    streams = StreamClient(bus, PATIENT)
    await streams.start()
    generation = CompletionGeneration(id=streams.new_id(), model="m", prompt="x")
    with pytest.raises(BusUnavailable, match="declared"):
        await anext(streams.stream(generation, Envelope.within(60)))
    await streams.stop()
    await bus.close()


async def test_an_answer_goes_on_where_it_was_when_nats_has_restarted(own_nats: RunningNats) -> None:
    async with local_cluster(own_nats.url) as cluster:
        await cluster.node(speed=100)
        dispatcher = await cluster.dispatcher()
        reading = asyncio.ensure_future(cluster.ask(cluster.generation("again and", tokens=200)))
        await eventually(lambda: sum(cluster.running().values()) == 1)
        own_nats.kill()
        await eventually(lambda: not cluster.bus.connected)
        with pytest.raises(BusUnavailable):
            await cluster.ask(cluster.generation())
        await eventually(lambda: not any(cluster.running().values()))
        await asyncio.to_thread(own_nats.restart)
        text, ended = await reading
        assert text == " ".join(["again and"] * 100)
        assert ended.finish.usage.completion_tokens == 200
        text, _ = await cluster.ask(cluster.generation("and again"))
        assert text == "and again"
        await cluster.settled(dispatcher)


async def test_an_answer_is_given_up_when_nats_stays_away(
    own_nats: RunningNats,
) -> None:
    async with local_cluster(own_nats.url) as cluster:
        cluster.streams.limits = StreamLimits(max_outage_s=0.5)
        await cluster.node(speed=50)
        await cluster.dispatcher()
        reading = asyncio.ensure_future(cluster.ask(cluster.generation(tokens=100_000)))
        await eventually(lambda: sum(cluster.running().values()) == 1)
        own_nats.kill()
        with pytest.raises(BusUnavailable, match="lost before the answer was complete"):
            await asyncio.wait_for(reading, 30)
        await asyncio.to_thread(own_nats.restart)
        await eventually(lambda: cluster.bus.connected)


async def test_stopping_tells_those_who_read(bus: Bus) -> None:
    streams = StreamClient(bus)
    await streams.start()
    reading = Reading(streams)
    await eventually(lambda: streams.open_streams)
    await streams.stop()
    with pytest.raises(ShuttingDown, match="shutting down"):
        await reading.task
