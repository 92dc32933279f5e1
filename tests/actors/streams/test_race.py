"""Two writers of one stream, of which its reader hears the one that begins first."""

from __future__ import annotations

import pytest

from actors.bus.message import Message
from actors.streams.reader import OpenStream
from actors.streams.writer import WRITER
from orchestration.errors import InvalidRequest
from orchestration.messages import Chunk, Ended, SoFar

FIRST = ""


class Race:
    """A stream whose second writer may begin; `winners` are those that were named as the first to come."""

    def __init__(self) -> None:
        self.stream = OpenStream(lambda _: None)
        self.winners: list[str] = []
        self.second = self.ask().writer

    def ask(self) -> SoFar:
        return self.stream.race(self.winners.append)

    def write(self, writer: str, event: Chunk | Ended) -> bool:
        headers = {WRITER: writer} if writer else None
        return self.stream.put(Message("stream.a.1", "probe", event.model_dump_json().encode(), headers))

    def read(self) -> list[object]:
        arrived = self.stream.arrived
        return [arrived.get_nowait() for _ in range(arrived.qsize())]


@pytest.fixture
async def race() -> Race:
    return Race()


def chunk(text: str, seq: int = 0) -> Chunk:
    return Chunk(seq=seq, text=text)


def refused(seq: int = 0) -> Ended:
    return Ended(seq=seq, finish_reason="error", error=InvalidRequest("no").body())


@pytest.mark.parametrize("second_wins", [True, False])
async def test_the_first_event_decides_and_whoever_else_writes_is_told_to_stop(
    race: Race, second_wins: bool
) -> None:
    winner, loser = (race.second, FIRST) if second_wins else (FIRST, race.second)
    assert race.write(winner, chunk("its"))
    assert not race.write(loser, chunk("another"))
    assert race.write(winner, chunk(" text", 1))
    assert race.winners == [winner]
    assert race.read() == [chunk("its"), chunk(" text", 1)]


async def test_a_refusal_of_the_second_is_not_heard_while_the_first_may_answer(race: Race) -> None:
    assert race.write(race.second, refused())
    assert race.winners == []
    assert race.write(FIRST, chunk("done"))
    assert race.winners == [FIRST]
    assert race.read() == [chunk("done")]


async def test_an_error_of_the_second_counts_once_it_is_the_one_that_is_read(race: Race) -> None:
    race.write(race.second, chunk("so far"))
    race.write(race.second, refused(1))
    assert race.read() == [chunk("so far"), refused(1)]


async def test_a_refusal_of_the_first_is_the_answer(race: Race) -> None:
    race.write(FIRST, refused())
    assert (race.winners, race.read()) == ([FIRST], [refused()])


async def test_nobody_may_race_who_is_read_already_nor_twice_nor_when_it_is_over(race: Race) -> None:
    assert race.ask() == SoFar(alive=True)
    race.write(FIRST, chunk("begun"))
    assert race.ask() == SoFar(alive=True)
    race.write(FIRST, Ended(seq=1, finish_reason="stop"))
    assert race.ask() == SoFar(open=False)


async def test_a_hand_over_ends_the_race_for_both(race: Race) -> None:
    third = race.stream.hand_over(0).writer
    assert not race.write(FIRST, chunk("late"))
    assert not race.write(race.second, chunk("late"))
    assert race.write(third, chunk("on time"))
    assert (race.winners, race.read()) == ([], [chunk("on time")])


async def test_work_that_was_delivered_again_during_a_race_has_one_reader_too(race: Race) -> None:
    assert race.stream.hand_over(quiet_s=3) == SoFar()  # its dispatcher died: another runs it anew
    assert race.write("third", chunk("quickest"))
    assert not race.write(FIRST, chunk("late"))
    assert not race.write(race.second, chunk("late"))
    assert (race.winners, race.read()) == (["third"], [chunk("quickest")])
