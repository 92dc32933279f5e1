"""A stream that another writer goes on with, from what its reader has."""

from __future__ import annotations

import asyncio

import pytest

from actors.bus.message import Message
from actors.bus.subjects import StreamAddress
from actors.runtime.envelope import Envelope
from actors.streams import handoff
from actors.streams.channel import SUPERSEDED
from actors.streams.client import StreamClient
from actors.streams.handoff import RemoteReader
from actors.streams.writer import StreamWriter
from orchestration.errors import DeadlineExceeded
from orchestration.messages import HandoffRequest, StreamPosition, TextDelta, encode_event
from tests.fixtures.eventually import eventually
from tests.fixtures.reading import END, Reading, deltas, end, streams

__all__ = ["streams"]


async def test_a_stream_that_is_handed_over_goes_on_from_what_was_read(streams: StreamClient) -> None:
    reading = Reading(streams)
    await reading.write(*deltas("a", "b"))
    await eventually(lambda: reading.text == "ab")
    position = await resume(streams, reading)
    begun = position.continuation
    assert (position.open, begun.text, begun.tokens, begun.first_seq) == (True, "ab", 2, 2)
    await reading.write(*deltas("x", "y", start=2), end(4))  # thawed, too late
    await reading.write(*deltas("c d", start=2), end(3), writer=begun.writer)
    assert await reading.task == END
    assert reading.text == "abc d"
    assert not (await resume(streams, reading)).open


async def test_what_has_arrived_and_was_not_read_yet_counts_as_read(streams: StreamClient) -> None:
    work = streams.new_id()

    async def send(accepted: str) -> None: ...

    events = streams.follow(work, Envelope.within(60), send)
    first = asyncio.ensure_future(anext(events))
    await eventually(lambda: streams.open_streams)
    for frame in deltas("a", "b", "c"):
        await streams.bus.publish(f"stream.{work}", encode_event(frame.seq, frame.event))
    await first
    await streams.bus.flush()
    reply = await streams.bus.request(f"stream_handoff.{work}", b"{}")
    assert StreamPosition.model_validate_json(reply.data).continuation.text == "abc"
    await events.aclose()


async def test_a_writer_that_was_given_up_is_told_to_stop(streams: StreamClient) -> None:
    reading = Reading(streams)
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    await resume(streams, reading)
    told: list[bytes] = []
    probe = streams.bus.expect(lambda message: told.append(message.data))
    data = encode_event(1, TextDelta(text="b"))
    await streams.bus.publish(f"stream.{reading.id}", data, reply=probe)
    await eventually(lambda: told == [SUPERSEDED])
    reading.task.cancel()
    await asyncio.wait({reading.task})
    await streams.bus.publish(f"stream.{reading.id}", data, reply=probe)  # nobody reads it any more
    await eventually(lambda: told == [SUPERSEDED, SUPERSEDED])
    streams.bus.forget(probe)


async def test_a_writer_that_is_alive_is_left_alone(streams: StreamClient) -> None:
    reading = Reading(streams)
    assert (
        await resume(streams, reading, quiet_s=60) == StreamPosition()
    )  # nothing written: it has its chance
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    assert (await resume(streams, reading, quiet_s=60)).alive
    await reading.write(end(1))
    await reading.task


async def test_a_later_delivery_supersedes_an_earlier_one_for_good(streams: StreamClient) -> None:
    reading = Reading(streams)
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    first = (await resume(streams, reading, attempt=1)).continuation
    second = (await resume(streams, reading, attempt=2)).continuation
    assert second.writer
    assert first.writer != second.writer
    for quiet_s in (0, 60):
        assert await resume(streams, reading, quiet_s=quiet_s, attempt=1) == StreamPosition(superseded=True)
    assert await RemoteReader(streams.bus, reading.id).is_superseded(1)
    assert not await RemoteReader(streams.bus, reading.id).is_superseded(2)
    await reading.write(*deltas("b", start=1), writer=second.writer)
    await eventually(lambda: reading.text == "ab")
    assert (await resume(streams, reading, attempt=2)).continuation.first_seq == 2
    await reading.write(end(2))
    reading.task.cancel()
    await asyncio.wait({reading.task})
    assert not await RemoteReader(streams.bus, reading.id).is_superseded(1)


async def test_a_delivery_whose_writer_is_alive_supersedes_none(streams: StreamClient) -> None:
    reading = Reading(streams)
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    assert (await resume(streams, reading, quiet_s=60, attempt=2)).alive
    assert (await resume(streams, reading, attempt=1)).continuation.writer
    reading.task.cancel()
    await asyncio.wait({reading.task})


async def test_a_writer_that_has_nothing_to_show_yet_says_that_it_is_alive(
    streams: StreamClient,
) -> None:
    reading = Reading(streams)
    await eventually(lambda: streams.open_streams)
    writer = StreamWriter(streams.bus, StreamAddress(reading.id), lambda: None, keep_alive_s=0.0)
    await writer.write(TextDelta(text=""))

    async def known() -> bool:
        return (await resume(streams, reading, quiet_s=60)).alive

    await eventually(known)
    await writer.write(TextDelta(text="a"))
    writer.alive()
    await writer.end(END)
    assert (await reading.task).events == 1
    assert reading.text == "a"


async def test_a_look_at_a_stream_tells_of_its_writer_and_changes_nothing(
    streams: StreamClient,
) -> None:
    reading = Reading(streams)
    assert await resume(streams, reading, quiet_s=60, peek=True) == StreamPosition()
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    assert await resume(streams, reading, quiet_s=60, peek=True) == StreamPosition(alive=True, events=1)
    taken = (await resume(streams, reading)).continuation
    assert (await resume(streams, reading, quiet_s=60, peek=True)).events == 0  # of the next writer
    await reading.write(*deltas("b", start=1), end(2), writer=taken.writer)
    assert await reading.task == END
    assert reading.text == "ab"


async def test_a_reader_that_reconnects_late_is_waited_for(
    streams: StreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[float] = []
    send = RemoteReader._ask

    async def counted(reader: RemoteReader, request: HandoffRequest, timeout_s: float) -> StreamPosition:
        requests.append(timeout_s)
        return await send(reader, request, timeout_s)

    monkeypatch.setattr(RemoteReader, "_ask", counted)
    monkeypatch.setattr(handoff, "PAUSE_S", 0.001)
    reading = Reading(streams)
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    (subscription,) = streams._subscriptions[1:]
    await subscription.unsubscribe()
    await streams.bus.flush()
    position = asyncio.ensure_future(RemoteReader(streams.bus, reading.id).position())
    await eventually(lambda: len(requests) > 100)
    subject = StreamAddress(f"{streams.name}.*").handoff
    streams._subscriptions[1:] = [await streams.bus.subscribe(subject, streams._on_handoff_request)]
    assert (await position).continuation.text == "a"
    reading.task.cancel()
    await asyncio.wait({reading.task})


async def test_a_reader_whose_answer_was_lost_is_asked_again(
    streams: StreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handoff, "HANDOFF_TIMEOUT_S", 0.05)
    asked: list[Message] = []

    def answer_the_third(message: Message) -> None:
        asked.append(message)
        if len(asked) == 3:
            streams.bus.post(message.reply, StreamPosition(events=7).model_dump_json().encode())

    await streams.bus.subscribe(StreamAddress("lost.1").handoff, answer_the_third)
    assert (await RemoteReader(streams.bus, "lost.1").position()).events == 7


async def test_a_reader_counts_as_gone_in_the_end(
    streams: StreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handoff, "READER_WAIT_S", 0.1)
    assert not (await RemoteReader(streams.bus, "gone.1").position()).open
    monkeypatch.setattr(handoff, "HANDOFF_TIMEOUT_S", 0.05)
    await streams.bus.subscribe(StreamAddress("frozen.1").handoff, lambda message: None)
    with pytest.raises(DeadlineExceeded):
        await RemoteReader(streams.bus, "frozen.1").position()


async def resume(
    streams: StreamClient, reading: Reading, quiet_s: float = 0, attempt: int = 0, *, peek: bool = False
) -> StreamPosition:
    """Ask as a dispatcher does."""
    await eventually(lambda: streams.open_streams or reading.task.done())
    body = HandoffRequest(quiet_s=quiet_s, attempt=attempt, peek=peek).model_dump_json().encode()
    reply = await streams.bus.request(f"stream_handoff.{reading.id}", body)
    return StreamPosition.model_validate_json(reply.data)
