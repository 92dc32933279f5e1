from __future__ import annotations

import pytest

from actors.runtime import sent
from actors.runtime.message import Message
from actors.runtime.sent import Sent, Tail


def again(which: Sent, stream: str, seq: str) -> None:
    which.asked(Message(f"again.{stream}", "", seq.encode(), None))


def ended(which: Sent, stream: str, *events: bytes, first_seq: int = 0) -> tuple[Tail, list[bytes]]:
    heard: list[bytes] = []
    tail = which.open(stream, first_seq, heard.append)
    tail.events.extend(events)
    which.end(tail)
    return tail, heard


def test_a_stream_is_sent_again_from_the_event_that_is_asked_for() -> None:
    which = Sent()
    _, heard = ended(which, "a.1", b"5", b"6", b"7", first_seq=5)
    again(which, "a.1", "6")
    assert heard == [b"6", b"7"]
    again(which, "a.1", "2")
    assert heard[2:] == [b"5", b"6", b"7"]
    again(which, "a.1", "8")
    again(which, "a.1", "nonsense")
    again(which, "b.1", "0")
    assert len(heard) == 5


def test_a_stream_that_another_writer_took_over_is_not_sent_again() -> None:
    which = Sent()
    tail, heard = ended(which, "a.1", b"0")
    which.drop(tail)
    again(which, "a.1", "0")
    assert heard == []


def test_ended_streams_are_forgotten_by_size_and_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent, "MAX_BYTES", 250)
    which = Sent()
    heard = [ended(which, f"a.{number}", b" " * 100)[1] for number in range(3)]
    for number in range(3):
        again(which, f"a.{number}", "0")
    assert [len(each) for each in heard] == [0, 1, 1]
    monkeypatch.setattr(sent, "KEPT_S", 0.0)
    ended(which, "b.1", b"x")
    again(which, "a.2", "0")
    assert len(heard[2]) == 1


def test_the_last_event_of_each_stream_is_sent_again_over_a_new_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    which = Sent()
    _, heard = ended(which, "a.1", b"0", b"1")
    begun: list[bytes] = []
    which.open("b.1", 0, begun.append).events.append(b"x")
    which.open("c.1", 0, begun.append)
    which.reconnected()
    assert (heard, begun) == ([b"1"], [b"x"])
    monkeypatch.setattr(sent, "OUTAGE_S", 0.0)
    which.reconnected()
    assert (heard, begun) == ([b"1"], [b"x", b"x"])
