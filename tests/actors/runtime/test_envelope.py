from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.bus.message import decode_headers, encode_headers
from actors.runtime.envelope import ATTEMPT, DEADLINE, Envelope, trace_of
from orchestration.errors import DeadlineExceeded

WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)


@given(st.floats(0.001, 1e10), WORDS, WORDS, st.integers(1, 99))
def test_an_envelope_comes_back_from_its_headers(
    deadline: float, trace: str, caller: str, attempt: int
) -> None:
    envelope = Envelope(deadline=round(deadline, 3), trace=trace, caller=caller, attempt=attempt)
    assert Envelope.from_headers(envelope.headers()) == envelope


@pytest.mark.parametrize("said", ["soon", "nan", "inf", "-5", "1e300", ""])
def test_a_deadline_that_is_none_counts_as_none(said: str) -> None:
    assert Envelope.from_headers({DEADLINE: said}).deadline == 0


@pytest.mark.parametrize("said", ["x", "-1", "", "9" * 40])
def test_an_attempt_that_is_none_counts_as_the_first(said: str) -> None:
    assert Envelope.from_headers({ATTEMPT: said}).attempt == 1


def test_the_remaining_time_is_returned_or_its_end_raised() -> None:
    assert Envelope().remaining(7) == 7
    assert 4.5 < Envelope.within(5).remaining(7) <= 5
    with pytest.raises(DeadlineExceeded, match="passed"):
        Envelope(deadline=time.time() - 1).remaining(7)


def test_the_trace_of_a_run_that_nobody_traces_is_the_same_everywhere() -> None:
    version, trace, parent, flags = trace_of("run.1").split("-")
    assert (version, len(trace), len(parent), flags) == ("00", 32, 16, "00")
    assert trace_of("run.1") == trace_of("run.1") != trace_of("run.2")


@given(st.dictionaries(st.from_regex(r"[A-Za-z-]{1,20}", fullmatch=True), WORDS, max_size=6))
def test_headers_come_back_from_their_block(headers: dict[str, str]) -> None:
    block = encode_headers(headers)
    assert block.startswith(b"NATS/1.0\r\n")
    assert block.endswith(b"\r\n\r\n") or not headers
    assert decode_headers(block) == headers


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503"}),
        (b"NATS/1.0 409 Consumer Deleted\r\n\r\n", {"Status": "409", "Description": "Consumer Deleted"}),
        (
            b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 5\r\n\r\n",
            {"Status": "408", "Description": "Request Timeout", "Nats-Pending-Messages": "5"},
        ),
    ],
)
def test_the_servers_own_statuses_are_read(block: bytes, found: dict[str, str]) -> None:
    assert decode_headers(block) == found
