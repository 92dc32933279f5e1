from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from actors.bus.bus import Bus, BusSettings, Message
from actors.bus.subjects import StreamAddress
from actors.streams.channel import WRITER_HEADER
from actors.streams.writer import StreamWriter
from actors.telemetry.loop_monitor import LoopMonitor
from orchestration.errors import BusUnavailable
from orchestration.messages import (
    Finish,
    GenerationEnd,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    TopLogprob,
    Vectors,
    WriterAlive,
    decode_events,
)
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats

END = GenerationEnd(finish=Finish(reason="stop"))


class Heard:
    """Everything on one stream, decoded."""

    def __init__(self) -> None:
        self.events: list[StreamEvent | WriterAlive] = []
        self.seqs: list[int] = []
        self.headers: list[str] = []
        self.sizes: list[int] = []

    def __call__(self, message: Message) -> None:
        self.sizes.append(len(message.data))
        for frame in decode_events(message.data):
            self.events.append(frame.event)
            self.seqs.append(frame.seq)
            self.headers.append(message.header(WRITER_HEADER))

    @property
    def messages(self) -> int:
        return len(self.sizes)

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def ended(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], GenerationEnd)


async def stream(
    bus: Bus, writer: str = "", *, streamed: bool = True
) -> tuple[StreamWriter, Heard, list[str]]:
    address = StreamAddress(f"t.{uuid4().hex[:8]}")
    heard = Heard()
    gone: list[str] = []
    await bus.subscribe(address.subject, heard)
    await bus.flush()
    made = StreamWriter(bus, address, lambda: gone.append("gone"), writer, streamed=streamed)
    return made, heard, gone


async def test_the_first_delta_goes_out_at_once_and_fast_ones_are_joined(bus: Bus) -> None:
    writer, heard, _ = await stream(bus)
    await writer.write(TextDelta(text="first"))
    await eventually(lambda: heard.text == "first")
    for number in range(100):
        await writer.write(TextDelta(text=f" {number}"))
    await writer.end(END)
    await eventually(lambda: heard.ended)
    assert heard.text == "first" + "".join(f" {number}" for number in range(100))
    assert len(heard.events) <= 5
    assert heard.seqs == list(range(len(heard.events)))
    assert sum(event.tokens for event in heard.events if isinstance(event, TextDelta)) == 101


async def test_a_held_back_delta_goes_out_by_itself(bus: Bus) -> None:
    writer, heard, _ = await stream(bus)
    await writer.write(TextDelta(text="one"))
    await writer.write(TextDelta(text=" two"))
    await eventually(lambda: heard.text == "one two")
    writer.close()


async def test_tokens_without_text_are_counted_with_the_next(bus: Bus) -> None:
    writer, heard, _ = await stream(bus)
    await writer.write(TextDelta(text=""))
    await writer.write(TextDelta(text=""))
    await writer.write(TextDelta(text="é"))
    await eventually(lambda: heard.events)
    assert heard.events == [TextDelta(text="é", tokens=3)]
    writer.close()


async def test_logprobs_of_joined_deltas_stay_in_order(bus: Bus) -> None:
    writer, heard, _ = await stream(bus)
    for number in range(5):
        logprobs = (TokenLogprob(token=str(number), logprob=-float(number)),)
        await writer.write(TextDelta(text=str(number), logprobs=logprobs))
    await writer.end(END)
    await eventually(lambda: heard.ended)
    found = [
        each.token for event in heard.events if isinstance(event, TextDelta) for each in event.logprobs or ()
    ]
    assert found == ["0", "1", "2", "3", "4"]


async def test_progress_and_vectors_keep_their_place_among_the_text(bus: Bus) -> None:
    writer, heard, _ = await stream(bus)
    await writer.write(TextDelta(text="a"))
    await writer.write(TextDelta(text="b"))
    await writer.progress("thinking")
    await writer.vectors(Vectors(index=0, vectors=("AAAA",)))
    await writer.end(END)
    await eventually(lambda: heard.ended)
    assert [type(event).__name__ for event in heard.events] == [
        "TextDelta",
        "TextDelta",
        "Progress",
        "Vectors",
        "GenerationEnd",
    ]


async def test_a_stream_ends_once(bus: Bus) -> None:
    writer, heard, _ = await stream(bus)
    assert (await writer.end(END)).events == 0
    with pytest.raises(BusUnavailable, match="has ended"):
        await writer.end(END)
    await eventually(lambda: heard.ended)
    assert not bus.reply_inbox.expected


async def test_a_writer_nobody_listens_to_is_told(bus: Bus) -> None:
    gone: list[str] = []
    writer = StreamWriter(bus, StreamAddress("nobody.1"), lambda: gone.append("gone"))
    await writer.write(TextDelta(text="x"))
    await eventually(lambda: gone)
    writer.close()
    assert not bus.reply_inbox.expected


async def test_a_second_writer_signs_its_events(bus: Bus) -> None:
    writer, heard, _ = await stream(bus, "second")
    await writer.write(TextDelta(text="x"))
    await writer.end(END)
    await eventually(lambda: heard.ended)
    assert set(heard.headers) == {"second"}


async def test_a_delta_lost_in_the_background_fails_the_next(own_nats: RunningNats) -> None:
    bus = await Bus.connect(BusSettings(url=own_nats.url, reconnect_wait_s=0.05), name="test")
    writer, _, _ = await stream(bus, streamed=False)
    own_nats.kill()
    await eventually(lambda: not bus.connected)
    await writer.write(TextDelta(text="one"))  # held back, to be joined with more
    await eventually(lambda: writer._failure)
    with pytest.raises(BusUnavailable):
        await writer.write(TextDelta(text="two"))
    await asyncio.to_thread(own_nats.restart)
    await eventually(lambda: bus.connected)
    with pytest.raises(BusUnavailable):  # an end now would hide what was lost
        await writer.end(END)
    writer.close()
    await bus.close()


async def test_a_short_answer_that_nobody_reads_before_its_end_is_one_message(bus: Bus) -> None:
    writer, heard, _ = await stream(bus, streamed=False)
    for number in range(10):
        await writer.write(TextDelta(text=f" {number}"))
    await writer.end(END)
    await eventually(lambda: heard.ended)
    assert heard.messages == 1
    assert heard.text == "".join(f" {number}" for number in range(10))
    assert heard.seqs == [0, 1]


async def test_a_long_answer_that_nobody_reads_before_its_end_shows_that_it_has_begun(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.streams.writer.UNREAD_INTERVAL_S", 3600.0)
    writer, heard, _ = await stream(bus, streamed=False)
    await writer.write(TextDelta(text="first"))
    await eventually(lambda: heard.text == "first")
    for number in range(100):
        await writer.write(TextDelta(text=f" {number}"))
        await asyncio.sleep(0)
    assert heard.messages == 1
    await writer.end(END)
    await eventually(lambda: heard.ended)
    assert heard.messages == 2
    assert heard.text == "first" + "".join(f" {number}" for number in range(100))


async def test_slow_deltas_go_out_one_by_one_until_the_loop_is_behind(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.streams.writer.SLOW_INTERVAL_S", 0.0)
    writer, heard, _ = await stream(bus)
    for number in range(5):
        await writer.write(TextDelta(text=f" {number}"))
        await eventually(lambda number=number: heard.messages == number + 1)  # type: ignore[misc]
    monkeypatch.setattr(LoopMonitor, "is_behind", lambda monitor, now: True)
    for number in range(5, 50):
        await writer.write(TextDelta(text=f" {number}"))
    await writer.end(END)
    await eventually(lambda: heard.ended)
    assert heard.messages < 5 + 10
    assert heard.text == "".join(f" {number}" for number in range(50))


async def test_log_probabilities_that_nobody_reads_yet_do_not_exceed_a_message(bus: Bus) -> None:
    writer, heard, _ = await stream(bus, streamed=False)
    top = tuple(
        TopLogprob(token=" token", logprob=-12.345678901234, bytes=tuple(b" token")) for _ in range(20)
    )
    logprob = TokenLogprob(token=" token", logprob=-0.1234567890123, bytes=tuple(b" token"), top_logprobs=top)
    for _ in range(2000):
        await writer.write(TextDelta(text=" token", logprobs=(logprob,)))
    await writer.end(END)
    await eventually(lambda: heard.ended)
    deltas = [event for event in heard.events if isinstance(event, TextDelta)]
    assert sum(len(delta.logprobs or ()) for delta in deltas) == 2000
    assert max(heard.sizes) < 1_000_000, "the default limit of NATS"
