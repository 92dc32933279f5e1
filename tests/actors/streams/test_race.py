"""Two writers of one stream, of which its reader hears the one that begins first."""

from __future__ import annotations

import pytest

from actors.bus.message import Message
from actors.streams.channel import WRITER_HEADER
from actors.streams.reader import StreamReader
from orchestration.errors import InvalidRequest
from orchestration.messages import EventFrame, Finish, GenerationEnd, StreamPosition, TextDelta, encode_event

FIRST = ""


class Race:
    """A stream whose second writer may begin; `winners` are those that were named as the first to come."""

    def __init__(self) -> None:
        self.stream = StreamReader(lambda _: None)
        self.winners: list[str] = []
        self.second = self.ask().continuation.writer

    def ask(self) -> StreamPosition:
        return self.stream.race(self.winners.append)

    def write(self, writer: str, frame: EventFrame) -> bool:
        headers = {WRITER_HEADER: writer} if writer else None
        return self.stream.put(Message("stream.a.1", "probe", encode_event(frame.seq, frame.event), headers))

    def read(self) -> list[object]:
        arrived = self.stream.events
        return [arrived.get_nowait() for _ in range(arrived.qsize())]

    def has_read(self, *frames: EventFrame) -> bool:
        return self.read() == [frame.event for frame in frames]


@pytest.fixture
async def race() -> Race:
    return Race()


def delta(text: str, seq: int = 0) -> EventFrame:
    return EventFrame(seq, TextDelta(text=text))


def refused(seq: int = 0) -> EventFrame:
    finish = Finish(reason="error")
    return EventFrame(seq, GenerationEnd(finish=finish, error=InvalidRequest("no").body()))


@pytest.mark.parametrize("second_wins", [True, False])
async def test_the_first_event_decides_and_whoever_else_writes_is_told_to_stop(
    race: Race, second_wins: bool
) -> None:
    winner, loser = (race.second, FIRST) if second_wins else (FIRST, race.second)
    assert race.write(winner, delta("its"))
    assert not race.write(loser, delta("another"))
    assert race.write(winner, delta(" text", 1))
    assert race.winners == [winner]
    assert race.has_read(delta("its"), delta(" text", 1))


async def test_a_refusal_of_the_second_is_not_heard_while_the_first_may_answer(race: Race) -> None:
    assert race.write(race.second, refused())
    assert race.winners == []
    assert race.write(FIRST, delta("done"))
    assert race.winners == [FIRST]
    assert race.has_read(delta("done"))


async def test_an_error_of_the_second_counts_once_it_is_the_one_that_is_read(race: Race) -> None:
    race.write(race.second, delta("so far"))
    race.write(race.second, refused(1))
    assert race.has_read(delta("so far"), refused(1))


async def test_a_refusal_of_the_first_is_the_answer(race: Race) -> None:
    race.write(FIRST, refused())
    assert race.winners == [FIRST]
    assert race.has_read(refused())


async def test_nobody_may_race_who_is_read_already_nor_twice_nor_when_it_is_over(race: Race) -> None:
    assert race.ask() == StreamPosition(alive=True)
    race.write(FIRST, delta("begun"))
    assert race.ask() == StreamPosition(alive=True)
    race.write(FIRST, EventFrame(1, GenerationEnd(finish=Finish(reason="stop"))))
    assert race.ask() == StreamPosition(open=False)


async def test_a_hand_over_ends_the_race_for_both(race: Race) -> None:
    third = race.stream.hand_off(0).continuation.writer
    assert not race.write(FIRST, delta("late"))
    assert not race.write(race.second, delta("late"))
    assert race.write(third, delta("on time"))
    assert race.winners == []
    assert race.has_read(delta("on time"))


async def test_work_that_was_delivered_again_during_a_race_has_one_reader_too(race: Race) -> None:
    assert race.stream.hand_off(quiet_s=3) == StreamPosition()  # its dispatcher died: another runs it anew
    assert race.write("third", delta("quickest"))
    assert not race.write(FIRST, delta("late"))
    assert not race.write(race.second, delta("late"))
    assert race.winners == ["third"]
    assert race.has_read(delta("quickest"))
