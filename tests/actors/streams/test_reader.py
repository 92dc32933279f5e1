"""What is read of a stream that another node goes on with."""

from __future__ import annotations

import pytest

from actors.bus.message import Message
from actors.streams.channel import WRITER_HEADER
from actors.streams.reader import StreamReader
from orchestration.messages import TextDelta, encode_event


class Reader:
    def __init__(self) -> None:
        self.stream = StreamReader(lambda _: None)
        self.writer = ""
        self.seq = 0

    def write(self, reasoning: str = "", text: str = "") -> None:
        data = encode_event(self.seq, TextDelta(text=text, reasoning=reasoning))
        headers = {WRITER_HEADER: self.writer} if self.writer else None
        self.stream.put(Message("stream.a.1", "probe", data, headers))
        self.seq += 1

    def move(self) -> None:
        self.writer = self.stream.hand_off(0).continuation.writer

    def read(self) -> tuple[str, str]:
        """Reasoning and text."""
        arrived = self.stream.events
        events = [arrived.get_nowait() for _ in range(arrived.qsize())]
        deltas = [event for event in events if isinstance(event, TextDelta)]
        return "".join(delta.reasoning for delta in deltas), "".join(delta.text for delta in deltas)


@pytest.fixture
async def reader() -> Reader:
    return Reader()


async def test_a_node_that_thinks_anew_is_read_from_where_the_first_was_lost(reader: Reader) -> None:
    reader.write("six ")
    reader.write("times seven")
    reader.move()
    for part in ("six t", "imes seven is", " more"):
        reader.write(part)
    reader.write(text="42")
    assert reader.read() == ("six times seven is more", "42")


async def test_other_thoughts_are_read_from_where_they_differ(reader: Reader) -> None:
    reader.write("six times")
    reader.move()
    reader.write("six ")
    reader.write("plus")
    reader.write(" one", text="7")
    assert reader.read() == ("six timesplus one", "7")


async def test_once_text_was_read_a_node_that_goes_on_thinks_for_itself(reader: Reader) -> None:
    reader.write("six")
    reader.write(text="4")
    reader.move()
    reader.write("six and more")
    reader.write(text="2")
    assert reader.read() == ("six", "42")
