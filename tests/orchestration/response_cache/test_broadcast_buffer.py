"""A flight against the plain list of what was said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import BackendFailed
from orchestration.response_cache import BroadcastBuffer, Follower, SlowConsumer

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 40)),
        st.tuples(st.sampled_from(["join", "read", "leave"]), st.integers(0, 5)),
        st.tuples(st.just("close"), st.just(0)),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 120))
def test_every_follower_reads_everything_in_order_or_is_told_that_it_cannot(
    steps: list[tuple[str, int]], max_bytes: int
) -> None:
    flight: BroadcastBuffer[int] = BroadcastBuffer(max_bytes)
    said: list[int] = []
    followers: list[tuple[Follower[int], list[int], list[bool]]] = []
    for what, number in steps:
        chosen = followers[number % len(followers)] if followers else None
        if what == "put":
            flight.put(len(said), number)
            said.append(len(said))
        elif what == "close":
            flight.close()
        elif what == "join" and flight.open:
            woken: list[bool] = []
            followers.append((flight.join(lambda woken=woken: woken.append(True)), [], woken))  # type: ignore[misc]
        elif what == "read" and chosen is not None:
            follower, heard, woken = chosen
            try:
                new = follower.take()
                assert woken or not new or heard == []
                heard += new
                woken.clear()
            except SlowConsumer:
                assert not flight.open
        elif what == "leave" and chosen is not None:
            followers.remove(chosen)
            assert flight.leave(chosen[0]) == (not followers)
        for _, heard, _ in followers:
            assert heard == said[: len(heard)]
        assert flight.size <= max_bytes
        if flight.open:
            assert flight.items() == said
    flight.end()
    for follower, heard, _ in followers:
        try:
            heard += follower.take()
        except SlowConsumer:
            continue
        assert heard == said
        assert follower.done


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 100))
def test_a_follower_that_never_reads_neither_holds_up_nor_robs_one_that_does(
    sizes: list[int], max_bytes: int
) -> None:
    flight: BroadcastBuffer[int] = BroadcastBuffer(max_bytes)
    flight.join(lambda: None)
    quick, heard = flight.join(lambda: None), []
    for number, size in enumerate(sizes):
        flight.put(number, size)
        heard += quick.take()
        assert flight.size <= max_bytes
    assert heard == list(range(len(sizes)))


def test_a_late_follower_hears_the_beginning_and_then_follows() -> None:
    flight: BroadcastBuffer[str] = BroadcastBuffer(1000)
    early = flight.join(lambda: None)
    flight.put("a", 1)
    flight.put("b", 1)
    late = flight.join(lambda: None)
    assert late.take() == ["a", "b"]
    flight.put("c", 1)
    assert (late.take(), early.take()) == (["c"], ["a", "b", "c"])
    flight.end(BackendFailed("broken"))
    assert late.done
    assert isinstance(flight.error, BackendFailed)


def test_a_flight_that_was_closed_holds_only_what_has_yet_to_be_read() -> None:
    flight: BroadcastBuffer[str] = BroadcastBuffer(1000)
    follower = flight.join(lambda: None)
    flight.put("a", 10)
    flight.put("b", 10)
    assert follower.take() == ["a", "b"]
    flight.close()
    assert flight.size == 0
    assert flight.items() is None
    flight.put("c", 10)
    assert follower.take() == ["c"]
    with pytest.raises(ValueError, match="closed for new followers"):
        flight.join(lambda: None)
