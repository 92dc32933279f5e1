from __future__ import annotations

from orchestration.messages import Hardware, MemoryUse, ModelCard, NodeInfo
from orchestration.warming import WarmUp, plan


def node(
    name: str,
    loaded: str,
    offered: str,
    *,
    limit: int = 20,
    claims: tuple[str, ...] = (),
) -> NodeInfo:
    """Of models of 10 bytes with a letter as their names."""
    cards = tuple(
        ModelCard(name=model, memory_bytes=10, loaded=model in loaded, load_s=1.0)
        for model in loaded + offered
    )
    return NodeInfo(
        id=name,
        backend="echo",
        models=cards,
        hardware=Hardware(cores=1, memory_bytes=100, provider="none"),
        memory=MemoryUse(limit_bytes=limit, claims=claims),
        slots=1,
    )


def test_the_least_valuable_makes_room_for_what_is_worth_more() -> None:
    found = plan([node("n", "ab", "c")], {"a": 5.0, "b": 0.1, "c": 1.0}, floor=0.2)
    assert found == [WarmUp(node="n", model="c", leaving=("b",))]


def test_free_room_is_used_before_anybody_leaves() -> None:
    assert plan([node("n", "a", "bc")], {"a": 0.0, "c": 1.0}, floor=0.2) == [
        WarmUp(node="n", model="c", leaving=())
    ]


def test_models_expected_alike_do_not_take_turns() -> None:
    assert plan([node("n", "ab", "c")], {"a": 1.0, "b": 1.0, "c": 1.2}, floor=0.2) == []


def test_what_is_hardly_expected_is_not_loaded() -> None:
    assert plan([node("n", "a", "bc")], {"b": 0.19}, floor=0.2) == []


def test_the_second_replica_counts_less_than_the_first_of_another_model() -> None:
    nodes = [node("one", "a", "bc", limit=10), node("two", "", "abc", limit=10)]
    assert plan(nodes, {"a": 1.0, "b": 0.8, "c": 0.0}, floor=0.2) == [
        WarmUp(node="two", model="b", leaving=())
    ]


def test_nodes_that_hold_all_or_whose_room_is_fought_for_are_left_alone() -> None:
    expected = {"a": 0.0, "b": 9.0, "c": 9.0}
    assert plan([node("n", "a", "bc", limit=0), node("m", "a", "bc", limit=30)], expected, floor=0.2) == []
    assert plan([node("n", "a", "bc", claims=("a",))], expected, floor=0.2) == []
