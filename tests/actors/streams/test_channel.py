"""A stream whose reader is in the same process takes no message, and behaves as one over NATS."""

from __future__ import annotations

from functools import partial

import pytest
from pydantic_core import PydanticSerializationError

from actors.bus.bus import Bus
from actors.bus.subjects import StreamAddress
from actors.streams.channel import LocalChannel, NatsChannel, open_channel
from actors.streams.reader import StreamReader
from actors.streams.writer import StreamWriter
from orchestration.messages import Finish, GenerationEnd, RunEnd, StreamEvent, TextDelta

END = GenerationEnd(finish=Finish(reason="stop"))


@pytest.fixture
def readers(bus: Bus) -> dict[str, StreamReader]:
    """The open streams of the client `here`."""
    readers: dict[str, StreamReader] = {}
    bus.local_streams["here"] = readers
    return readers


def opened(readers: dict[str, StreamReader], stream_id: str) -> StreamReader:
    readers[stream_id] = StreamReader(lambda seq: None)
    return readers[stream_id]


def read(reader: StreamReader) -> list[StreamEvent]:
    events: list[StreamEvent] = []
    while not reader.events.empty():
        event = reader.events.get_nowait()
        assert not isinstance(event, Exception)
        events.append(event)
    return events


async def test_only_a_reader_in_this_process_is_reached_without_nats(
    bus: Bus, readers: dict[str, StreamReader]
) -> None:
    here = open_channel(bus, StreamAddress("here.1"), lambda: None, "", 0)
    elsewhere = open_channel(bus, StreamAddress("elsewhere.1"), lambda: None, "", 0)
    assert isinstance(here, LocalChannel)
    assert isinstance(elsewhere, NatsChannel)
    elsewhere.drop()


async def test_events_arrive_in_order_with_the_end(bus: Bus, readers: dict[str, StreamReader]) -> None:
    reader = opened(readers, "here.1")
    writer = StreamWriter(bus, StreamAddress("here.1"), lambda: None)
    for number in range(100):
        await writer.write(TextDelta(text=f" {number}"))
    ended = await writer.end(END)
    events = read(reader)
    assert "".join(event.text for event in events[:-1] if isinstance(event, TextDelta)) == "".join(
        f" {number}" for number in range(100)
    )
    assert events[-1] == ended
    assert ended.events == len(events) - 1


async def test_a_writer_whose_reader_left_or_took_another_is_told_at_once(
    bus: Bus, readers: dict[str, StreamReader]
) -> None:
    reader = opened(readers, "here.1")
    gone: list[str] = []
    first = StreamWriter(bus, StreamAddress("here.1"), partial(gone.append, "first"))
    await first.write(TextDelta(text="a"))
    assert not gone
    continuation = reader.hand_off(0).continuation
    assert continuation.text == "a"
    await first.flush()
    await first.write(TextDelta(text="late"))
    await first.flush()
    assert gone == ["first"]
    assert first.superseded
    address = StreamAddress("here.1")
    second = StreamWriter(
        bus, address, partial(gone.append, "second"), continuation.writer, continuation.first_seq
    )
    await second.write(TextDelta(text="b"))
    assert [event.text for event in read(reader) if isinstance(event, TextDelta)] == ["a", "b"]
    del readers["here.1"]
    second.alive()
    await second.write(TextDelta(text="c"))
    await second.flush()
    assert gone == ["first", "second"]
    assert not second.superseded


async def test_a_report_that_is_not_json_fails_as_it_does_over_nats(
    bus: Bus, readers: dict[str, StreamReader]
) -> None:
    reader = opened(readers, "here.1")
    writer = StreamWriter(bus, StreamAddress("here.1"), lambda: None)
    await writer.write(TextDelta(text="a"))
    end = RunEnd(finish=Finish(reason="stop"), report={"what": object()})
    with pytest.raises(PydanticSerializationError):
        await writer.end(end)
    await writer.end(end.model_copy(update={"report": {}}))
    assert isinstance(read(reader)[-1], RunEnd)
