from __future__ import annotations

from collections import defaultdict

from actors.bus.message import Message
from actors.bus.replay_buffer import EVENT_BYTES, STREAM_BYTES, ReplayBuffer, StreamTail
from actors.bus.subjects import StreamAddress


class Posted:
    """What was sent again, by stream."""

    def __init__(self) -> None:
        self.which = ReplayBuffer(self._post)
        self.replies: list[str] = []
        self._heard: dict[str, list[bytes]] = defaultdict(list)

    def __getitem__(self, stream: str) -> list[bytes]:
        return self._heard[f"stream.{stream}"]

    def _post(self, subject: str, data: bytes, *, reply: str, headers: dict[str, str] | None) -> None:
        assert headers == {"Orchestra-Writer": "w"}
        self._heard[subject].append(data)
        self.replies.append(reply)

    def open(self, stream: str, *events: bytes, first_seq: int = 0) -> StreamTail:
        tail = self.which.open(StreamAddress(stream), first_seq, "probe", {"Orchestra-Writer": "w"})
        tail.events.extend(events)
        return tail

    def end(self, stream: str, *events: bytes, first_seq: int = 0) -> StreamTail:
        tail = self.open(stream, *events, first_seq=first_seq)
        self.which.end(tail)
        return tail

    def resend(self, stream: str, seq: str) -> None:
        self.which.on_request(Message(f"stream_replay.{stream}", "", seq.encode(), None))


def test_a_stream_is_sent_again_from_the_requested_event() -> None:
    posted = Posted()
    posted.end("a.1", b"5", b"6", b"7", first_seq=5)
    posted.resend("a.1", "6")
    assert posted["a.1"] == [b"6", b"7"]
    posted.resend("a.1", "2")
    assert posted["a.1"][2:] == [b"5", b"6", b"7"]
    posted.resend("a.1", "8")
    posted.resend("a.1", "nonsense")
    posted.resend("b.1", "0")
    assert len(posted["a.1"]) == 5
    assert not posted["b.1"]


def test_only_a_running_stream_learns_that_it_has_no_reader() -> None:
    posted = Posted()
    tail = posted.open("a.1", b"0")
    posted.resend("a.1", "0")
    posted.which.end(tail)
    posted.resend("a.1", "0")
    assert posted.replies == ["probe", ""]


def test_a_stream_that_another_writer_took_over_is_not_sent_again() -> None:
    posted = Posted()
    tail = posted.end("a.1", b"0")
    posted.which.drop(tail)
    posted.resend("a.1", "0")
    assert posted["a.1"] == []


def test_ended_streams_are_forgotten_by_size_and_by_age() -> None:
    posted = Posted()
    posted.which.max_bytes = 2 * (100 + EVENT_BYTES + STREAM_BYTES)
    for number in range(3):
        posted.end(f"a.{number}", b" " * 100)
    for number in range(3):
        posted.resend(f"a.{number}", "0")
    assert [len(posted[f"a.{number}"]) for number in range(3)] == [0, 1, 1]
    posted.which.retention_s = 0.0
    posted.end("b.1", b"x")
    posted.resend("a.2", "0")
    assert len(posted["a.2"]) == 1


def test_the_last_event_of_each_stream_is_sent_again_over_a_new_connection() -> None:
    posted = Posted()
    posted.end("a.1", b"0", b"1")
    posted.open("b.1", b"x")
    posted.open("c.1")
    posted.which.on_reconnect()
    assert (posted["a.1"], posted["b.1"], posted["c.1"]) == ([b"1"], [b"x"], [])
    posted.which.outage_s = 0.0
    posted.which.on_reconnect()
    assert (posted["a.1"], posted["b.1"]) == ([b"1"], [b"x", b"x"])
