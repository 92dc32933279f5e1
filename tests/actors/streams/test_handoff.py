"""A stream that another writer goes on with, from what its reader has."""

from __future__ import annotations

import asyncio

import pytest

from actors.bus.subjects import StreamAddress
from actors.runtime.envelope import Envelope
from actors.streams import writer as streams
from actors.streams.client import Asker
from actors.streams.handoff import is_superseded
from actors.streams.writer import RETIRED, StreamWriter
from orchestration.messages import Resume, SoFar, TextDelta, encode_event
from tests.fixtures.eventually import eventually
from tests.fixtures.reading import END, Reading, asker, deltas, end

__all__ = ["asker"]


async def test_a_stream_that_is_handed_over_goes_on_from_what_was_read(asker: Asker) -> None:
    reading = Reading(asker)
    await reading.write(*deltas("a", "b"))
    await eventually(lambda: reading.text == "ab")
    so_far = await resume(asker, reading)
    assert (so_far.open, so_far.text, so_far.tokens, so_far.seq) == (True, "ab", 2, 2)
    await reading.write(*deltas("x", "y", start=2), end(4))  # thawed, too late
    await reading.write(*deltas("c d", start=2), end(3), writer=so_far.writer)
    assert await reading.task == END
    assert reading.text == "abc d"
    assert not (await resume(asker, reading)).open


async def test_what_has_arrived_and_was_not_read_yet_counts_as_read(asker: Asker) -> None:
    work = asker.new_id()

    async def send(accepted: str) -> None: ...

    events = asker.follow(work, Envelope.within(10), send)
    first = asyncio.ensure_future(anext(events))
    await eventually(lambda: asker.open_streams)
    for frame in deltas("a", "b", "c"):
        await asker.bus.publish(f"stream.{work}", encode_event(frame.seq, frame.event))
    await first
    await asker.bus.flush()
    reply = await asker.bus.request(f"resume.{work}", b"{}")
    assert SoFar.model_validate_json(reply.data).text == "abc"
    await events.aclose()


async def test_a_writer_that_was_given_up_is_told_to_stop(asker: Asker) -> None:
    reading = Reading(asker)
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    await resume(asker, reading)
    told: list[bytes] = []
    probe = asker.bus.expect(lambda message: told.append(message.data))
    data = encode_event(1, TextDelta(text="b"))
    await asker.bus.publish(f"stream.{reading.id}", data, reply=probe)
    await eventually(lambda: told == [RETIRED])
    reading.task.cancel()
    await asyncio.wait({reading.task})
    await asker.bus.publish(f"stream.{reading.id}", data, reply=probe)  # nobody reads it any more
    await eventually(lambda: told == [RETIRED, RETIRED])
    asker.bus.forget(probe)


async def test_a_writer_that_is_alive_is_left_alone(asker: Asker) -> None:
    reading = Reading(asker)
    assert await resume(asker, reading, quiet_s=60) == SoFar()  # nothing written: it has its chance
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    assert (await resume(asker, reading, quiet_s=60)).alive
    await reading.write(end(1))
    await reading.task


async def test_a_later_delivery_supersedes_an_earlier_one_for_good(asker: Asker) -> None:
    reading = Reading(asker)
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    first = await resume(asker, reading, attempt=1)
    second = await resume(asker, reading, attempt=2)
    assert second.writer
    assert first.writer != second.writer
    for quiet_s in (0, 60):
        assert await resume(asker, reading, quiet_s=quiet_s, attempt=1) == SoFar(superseded=True)
    assert await is_superseded(asker.bus, reading.id, 1)
    assert not await is_superseded(asker.bus, reading.id, 2)
    await reading.write(*deltas("b", start=1), writer=second.writer)
    await eventually(lambda: reading.text == "ab")
    assert (await resume(asker, reading, attempt=2)).seq == 2
    await reading.write(end(2))
    reading.task.cancel()
    await asyncio.wait({reading.task})
    assert not await is_superseded(asker.bus, reading.id, 1)


async def test_a_delivery_whose_writer_is_alive_supersedes_none(asker: Asker) -> None:
    reading = Reading(asker)
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    assert (await resume(asker, reading, quiet_s=60, attempt=2)).alive
    assert (await resume(asker, reading, attempt=1)).writer
    reading.task.cancel()
    await asyncio.wait({reading.task})


async def test_a_writer_that_has_nothing_to_show_yet_says_that_it_is_alive(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "ALIVE_S", 0.0)
    reading = Reading(asker)
    await eventually(lambda: asker.open_streams)
    writer = StreamWriter(asker.bus, StreamAddress(reading.id), lambda: None)
    await writer.write(TextDelta(text=""))

    async def known() -> bool:
        return (await resume(asker, reading, quiet_s=60)).alive

    await eventually(known)
    await writer.write(TextDelta(text="a"))
    writer.alive()
    await writer.end(END)
    assert (await reading.task).events == 1
    assert reading.text == "a"


async def test_a_look_at_a_stream_tells_of_its_writer_and_changes_nothing(asker: Asker) -> None:
    reading = Reading(asker)
    assert await resume(asker, reading, quiet_s=60, peek=True) == SoFar()
    await reading.write(*deltas("a"))
    await eventually(lambda: reading.text == "a")
    assert await resume(asker, reading, quiet_s=60, peek=True) == SoFar(alive=True, seq=1)
    taken = await resume(asker, reading)
    assert (await resume(asker, reading, quiet_s=60, peek=True)).seq == 0  # of the next writer
    await reading.write(*deltas("b", start=1), end(2), writer=taken.writer)
    assert await reading.task == END
    assert reading.text == "ab"


async def resume(
    asker: Asker, reading: Reading, quiet_s: float = 0, attempt: int = 0, *, peek: bool = False
) -> SoFar:
    """Ask as a dispatcher does."""
    await eventually(lambda: asker.open_streams or reading.task.done())
    body = Resume(quiet_s=quiet_s, attempt=attempt, peek=peek).model_dump_json().encode()
    reply = await asker.bus.request(f"resume.{reading.id}", body)
    return SoFar.model_validate_json(reply.data)
