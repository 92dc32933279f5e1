"""Server-sent events: the same events however the network cuts the bytes."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.backends.openai.sse import SseParser
from orchestration.errors import BackendFailed

STREAM = (
    b"\xef\xbb\xbf: keep-alive\n\n"
    b'data: {"a": "\xc3\xa9\xe2\x82\xac"}\n\n'
    b"event: x\r\nid: 1\r\ndata:first\r\ndata:  second\r\n\r\n"
    b"data: by CR\r\r"
    b"data\n\n"
    b"datum: no\n\n\n\n"
    b"data: [DONE]\n\n"
)
EVENTS = [b'{"a": "\xc3\xa9\xe2\x82\xac"}', b"first\n second", b"by CR", b"", b"[DONE]"]


def _feed(parser: SseParser, blocks: list[bytes]) -> list[bytes]:
    return [event for block in blocks for event in parser.feed(block)]


def test_events_come_out_of_one_block() -> None:
    assert _feed(SseParser(1024), [STREAM]) == EVENTS


def test_events_come_out_a_byte_at_a_time() -> None:
    assert _feed(SseParser(1024), [bytes([byte]) for byte in STREAM]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_do_not_depend_on_the_cuts(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    blocks = [STREAM[start:end] for start, end in itertools.pairwise(edges)]
    assert _feed(SseParser(1024), blocks) == EVENTS


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_give_the_same_events_in_one_block_and_in_two(data: bytes, cut: int) -> None:
    whole, halves = SseParser(1024), SseParser(1024)
    assert [*_feed(whole, [data]), *whole.flush()] == [
        *_feed(halves, [data[:cut], data[cut:]]),
        *halves.flush(),
    ]


def test_flush_gives_an_event_whose_empty_line_never_came() -> None:
    parser = SseParser(1024)
    assert parser.feed(b"data: [DO") == []
    assert parser.feed(b"NE]") == []
    assert parser.flush() == [b"[DONE]"]
    assert parser.flush() == []


@pytest.mark.parametrize("block", [b"data: " + b"x" * 100, b"data: " + b"x" * 30 + b"\n", b"data\n" * 25])
def test_an_event_over_the_limit_is_refused(block: bytes) -> None:
    with pytest.raises(BackendFailed, match="max_line_bytes 100"):
        _feed(SseParser(100), [block] * 5)


def test_a_long_line_that_drips_in_costs_time_in_proportion_to_its_length() -> None:
    def drip(size: int) -> float:
        parser = SseParser(1 << 20)
        started = time.process_time()
        for _ in range(size):
            parser.feed(b"x")
        assert parser.feed(b"\n\n") == []
        return time.process_time() - started

    drip(1000)
    # Sixteen times the bytes: 16 times the time if linear, 256 times if quadratic.
    assert drip(320_000) < 80 * max(drip(20_000), 0.002)
