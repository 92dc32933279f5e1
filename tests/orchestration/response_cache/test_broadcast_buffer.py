"""A buffer against the plain list of what was said."""

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
def test_every_follower_reads_all_items_in_order_or_fails(
    steps: list[tuple[str, int]], max_bytes: int
) -> None:
    buffer: BroadcastBuffer[int] = BroadcastBuffer(max_bytes)
    said: list[int] = []
    followers: list[tuple[Follower[int], list[int], list[bool]]] = []
    for what, number in steps:
        chosen = followers[number % len(followers)] if followers else None
        if what == "put":
            buffer.put(len(said), number)
            said.append(len(said))
        elif what == "close":
            buffer.close()
        elif what == "join" and buffer.open:
            woken: list[bool] = []
            followers.append((buffer.join(lambda woken=woken: woken.append(True)), [], woken))  # type: ignore[misc]
        elif what == "read" and chosen is not None:
            follower, heard, woken = chosen
            try:
                new = follower.take()
                assert woken or not new or heard == []
                heard += new
                woken.clear()
            except SlowConsumer:
                assert not buffer.open
        elif what == "leave" and chosen is not None:
            followers.remove(chosen)
            assert buffer.leave(chosen[0]) == (not followers)
        for _, heard, _ in followers:
            assert heard == said[: len(heard)]
        assert buffer.size <= max_bytes
        if buffer.open:
            assert buffer.items() == said
    buffer.end()
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
    buffer: BroadcastBuffer[int] = BroadcastBuffer(max_bytes)
    buffer.join(lambda: None)
    quick, heard = buffer.join(lambda: None), []
    for number, size in enumerate(sizes):
        buffer.put(number, size)
        heard += quick.take()
        assert buffer.size <= max_bytes
    assert heard == list(range(len(sizes)))


def test_a_late_follower_reads_the_beginning_and_then_follows() -> None:
    buffer: BroadcastBuffer[str] = BroadcastBuffer(1000)
    early = buffer.join(lambda: None)
    buffer.put("a", 1)
    buffer.put("b", 1)
    late = buffer.join(lambda: None)
    assert late.take() == ["a", "b"]
    buffer.put("c", 1)
    assert (late.take(), early.take()) == (["c"], ["a", "b", "c"])
    buffer.end(BackendFailed("broken"))
    assert late.done
    assert isinstance(buffer.error, BackendFailed)


def test_a_closed_buffer_holds_only_unread_items() -> None:
    buffer: BroadcastBuffer[str] = BroadcastBuffer(1000)
    follower = buffer.join(lambda: None)
    buffer.put("a", 10)
    buffer.put("b", 10)
    assert follower.take() == ["a", "b"]
    buffer.close()
    assert buffer.size == 0
    assert buffer.items() is None
    buffer.put("c", 10)
    assert follower.take() == ["c"]
    with pytest.raises(ValueError, match="closed for new followers"):
        buffer.join(lambda: None)
