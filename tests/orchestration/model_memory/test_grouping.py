from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestration.model_memory import Grouping, PendingModel
from tests.orchestration.model_memory.one_node import NODE, OneNode, told

SIZES = {"a": 4, "b": 4, "c": 4}
REQUESTS = st.lists(st.tuples(st.floats(0, 20), st.sampled_from("abcd")), min_size=1, max_size=60).map(sorted)


def waiting(model: str, since: float = 0.0, **said: object) -> PendingModel:
    return PendingModel(model=model, since=since, nodes=(NODE,), **said)  # type: ignore[arg-type]


def of_one(limit: int = 4, loaded: str = "a", hold_s: float = 5.0) -> Grouping:
    grouping = Grouping(hold_s)
    grouping.report(told(SIZES, limit, set(loaded)), 0.0)
    return grouping


def test_interleaved_requests_run_model_by_model_and_in_order_of_arrival_without_a_hold() -> None:
    requests = [(0.001 * n, "abc"[n % 3]) for n in range(120)]
    grouped = OneNode(SIZES, 4, hold_s=10, load_s=1, service_s=0.2).play(requests)
    in_order = OneNode(SIZES, 4, hold_s=0, load_s=1, service_s=0.2).play(requests)
    assert sorted(grouped.starts) == sorted(in_order.starts)
    assert grouped.loads == 2
    assert in_order.loads >= 100
    assert grouped.took_s < in_order.took_s / 5


def test_a_group_without_end_makes_room_after_its_hold_and_gets_its_place_back() -> None:
    requests = sorted([(0.1 * n, "a") for n in range(400)] + [(1.0, "b"), (1.0, "c")])
    played = OneNode(SIZES, 4, hold_s=5, load_s=1, service_s=0.1).play(requests)
    assert played.loads == 3, "b and c had their turn, then a the place again"
    assert max(played.absences) < 5 + 2 * 1.2
    assert played.starts[-1] == "a"


@given(
    REQUESTS,
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 6), min_size=4),
    st.integers(6, 14),
    st.floats(0.1, 8),
    st.floats(0.05, 3),
    st.floats(0.01, 1),
    st.integers(1, 4),
)
def test_nobody_starves_nothing_in_use_leaves_and_no_turn_is_longer_than_its_bound(
    requests: list[tuple[float, str]],
    sizes: dict[str, int],
    limit: int,
    hold_s: float,
    load_s: float,
    service_s: float,
    slots: int,
) -> None:
    node = OneNode(sizes, limit, hold_s=hold_s, load_s=load_s, service_s=service_s, slots=slots)
    played = node.play(requests)
    assert sorted(played.starts) == sorted(model for _, model in requests)
    assert played.loads <= len(requests)
    turn_s = max(hold_s, load_s) + load_s + service_s
    assert max(played.absences, default=0.0) <= 3 * turn_s + 0.01


def test_two_models_with_long_queues_do_not_alternate_only_with_each_other() -> None:
    requests = [(0.001 * n, "ab"[n % 2]) for n in range(600)] + [(1.0, "c")]
    played = OneNode(SIZES, 4, hold_s=2, load_s=0.5, service_s=0.1).play(requests)
    turns = [model for n, model in enumerate(played.starts) if n == 0 or played.starts[n - 1] != model]
    assert "".join(turns).startswith("abc")


def test_with_room_for_all_nothing_is_grouped() -> None:
    grouping = of_one(limit=12)
    assert grouping.nodes == {}
    assert grouping.in_memory(NODE, "c")
    grouping.report(told(SIZES, 4, {"a"}), 0.0)
    assert grouping.changed
    assert not grouping.in_memory(NODE, "c")
    grouping.report(told(SIZES, 0, {"a"}), 1.0)
    assert grouping.nodes == {}


def test_an_idle_model_makes_room_at_once_and_one_at_work_when_its_turn_is_over() -> None:
    grouping = of_one()
    assert grouping.time_slices([waiting("b")], 0.0).open == {NODE: {"b"}}
    grouping.started(NODE, "a", 1.0)
    early = grouping.time_slices([waiting("b"), waiting("a")], 2.0)
    assert (early.open, early.until) == ({NODE: {"a"}}, 6.0)
    late = grouping.time_slices([waiting("b"), waiting("a")], 6.0)
    assert late.open == {NODE: set()}, "a takes nothing more, and b waits for what it has at work"
    grouping.ended(NODE, "a", 6.5, failed=False, waited_for=True)
    assert grouping.time_slices([waiting("b"), waiting("a")], 6.5).open == {NODE: {"b"}}


def test_an_idle_model_keeps_its_place_for_a_moment() -> None:
    grouping = of_one()
    grouping.started(NODE, "a", 1.0)
    grouping.ended(NODE, "a", 2.0, failed=False, waited_for=False)
    time_slices = grouping.time_slices([waiting("b")], 2.0)
    assert (time_slices.open, time_slices.until) == ({NODE: {"a"}}, 2.1), "a tenth of what loading b takes"
    assert grouping.time_slices([waiting("b")], 2.11).open == {NODE: {"b"}}


def test_of_those_that_wait_the_longest_by_its_urgency_is_next() -> None:
    grouping = of_one()
    assert grouping.time_slices([waiting("b", 3.0), waiting("c", 2.0)], 4.0).open == {NODE: {"c"}}
    urgent = [waiting("b", 3.0, urgency=8.0), waiting("c", 2.0, urgency=1.0)]
    assert grouping.time_slices(urgent, 4.0).open == {NODE: {"b"}}
    assert grouping.time_slices(urgent, 40.0).open == {NODE: {"b"}}
    assert grouping.time_slices([waiting("b", 39.0, urgency=8.0), waiting("c", 2.0)], 40.0).open == {
        NODE: {"c"}
    }


def test_the_turn_of_less_urgent_work_is_shorter_by_as_much_yet_no_shorter_than_a_load() -> None:
    grouping = of_one(hold_s=8.0)
    grouping.started(NODE, "a", 0.0)
    batch, interactive = waiting("a", urgency=1.0), waiting("b", urgency=4.0)
    assert grouping.time_slices([batch, interactive], 0.5).until == 2.0
    assert grouping.time_slices([batch, waiting("b", urgency=100.0)], 0.5).until == 1.0
    other_way_round = [waiting("a", urgency=4.0), waiting("b", urgency=1.0)]
    assert grouping.time_slices(other_way_round, 0.5).until == 8.0


def test_a_model_that_runs_on_another_node_takes_idle_room_and_evicts_none() -> None:
    grouping = of_one(hold_s=1.0)
    grouping.started(NODE, "a", 0.0)
    assert grouping.time_slices([waiting("a"), waiting("b", served=True)], 100.0).open == {NODE: {"a"}}
    grouping.ended(NODE, "a", 100.0, failed=False, waited_for=False)
    assert "b" in grouping.time_slices([waiting("b", served=True)], 101.0).open[NODE]


def test_one_that_starves_takes_one_of_many_nodes_where_a_place_comes_soonest() -> None:
    grouping = Grouping(5.0)
    names = ("n1", "n2", "n3")
    for number, name in enumerate(names):
        grouping.report(told(SIZES, 4, {"a"}, name=name), 0.0)
        grouping.started(name, "a", float(number))
    b = PendingModel(model="b", since=0.0, nodes=names)
    a = PendingModel(model="a", since=0.0, served=True, nodes=names)
    time_slices = grouping.time_slices([a, b], 20.0)
    assert time_slices.open == {"n1": set(), "n2": {"a"}, "n3": {"a"}}


def test_work_that_a_node_refused_to_another_dispatcher_counts_as_waiting() -> None:
    grouping = of_one(hold_s=5.0)
    grouping.started(NODE, "a", 0.0)
    grouping.report(told(SIZES, 4, {"a"}, claims=("b",)), 1.0)
    assert grouping.changed
    assert grouping.time_slices([waiting("a")], 1.0).open == {NODE: {"a"}}
    assert grouping.time_slices([waiting("a")], 5.0).open == {NODE: set()}


def test_a_report_older_than_a_load_changes_nothing_and_a_refusal_undoes_the_load() -> None:
    grouping = of_one()
    grouping.started(NODE, "b", 0.0)
    grouping.report(told(SIZES, 4, {"a"}), 0.1)
    assert grouping.in_memory(NODE, "b")
    assert not grouping.in_memory(NODE, "a")
    grouping.ended(NODE, "b", 0.2, failed=True, waited_for=True)
    assert grouping.in_memory(NODE, "a")
    assert not grouping.in_memory(NODE, "b")
    grouping.started(NODE, "b", 1.0)
    grouping.report(told(SIZES, 4, {"b"}), 2.0)
    grouping.report(told(SIZES, 4, {"c"}), 3.0)
    assert not grouping.in_memory(NODE, "a")
    assert grouping.in_memory(NODE, "c"), "confirmed, so the node is believed again"
