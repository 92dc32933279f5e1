from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestration.messages import Hardware, NodeInfo
from orchestration.placement import free_slots, least_busy

HARDWARE = Hardware(cores=1, memory_bytes=1, provider="none")


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[NodeInfo], dict[str, int], frozenset[str]]:
    ids = draw(st.lists(st.sampled_from("abcdefgh"), unique=True))
    nodes = [
        NodeInfo(
            id=name,
            backend="echo",
            models=(),
            hardware=HARDWARE,
            slots=draw(st.integers(1, 8)),
            running=draw(st.integers(0, 10)),
            draining=draw(st.booleans()),
        )
        for name in ids
    ]
    in_flight = draw(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 10)))
    return nodes, in_flight, draw(st.frozensets(st.sampled_from("abcdefgh")))


@given(clusters())
def test_the_chosen_node_has_room_and_nobody_has_more(
    cluster: tuple[list[NodeInfo], dict[str, int], frozenset[str]],
) -> None:
    nodes, in_flight, without = cluster
    chosen = least_busy(nodes, in_flight, without=without)
    free = {node.id: free_slots(node, in_flight.get(node.id, 0)) for node in nodes if node.id not in without}
    if chosen is None:
        assert not any(free.values())
        return
    assert free[chosen.id] == max(free.values()) > 0
    assert chosen.id == min(name for name, slots in free.items() if slots == free[chosen.id])
    assert not chosen.draining


@given(clusters())
def test_the_choice_does_not_depend_on_the_order_of_the_nodes(
    cluster: tuple[list[NodeInfo], dict[str, int], frozenset[str]],
) -> None:
    nodes, in_flight, without = cluster
    turned = list(reversed(nodes))
    assert least_busy(nodes, in_flight, without=without) == least_busy(turned, in_flight, without=without)


@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 30))
def test_the_larger_count_is_the_safe_guess(slots: int, running: int, in_flight: int) -> None:
    node = NodeInfo(id="n", backend="echo", models=(), hardware=HARDWARE, slots=slots, running=running)
    assert free_slots(node, in_flight) == max(0, slots - max(running, in_flight))
