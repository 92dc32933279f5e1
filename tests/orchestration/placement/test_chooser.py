from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.messages import NodeInfo
from orchestration.placement import Chooser, Deferral, Demand, Outcome, SlotShare
from orchestration.placement.replica import STALE_S
from tests.orchestration.placement.nodes import MODEL, NEEDS, fill, needing, node, where


def seeing(*nodes: NodeInfo, now: float = 0.0, seed: int = 1) -> Chooser:
    chooser = Chooser(random=Random(seed))
    for each in nodes:
        chooser.index.put(each, now)
    return chooser


NODES = st.lists(
    st.builds(
        node,
        st.sampled_from("abcdefgh"),
        speed=st.floats(1, 1000),
        slots=st.integers(1, 6),
        running=st.integers(0, 8),
        draining=st.booleans(),
        samples=st.sampled_from((0, 1, 1000)),
        error_rate=st.floats(0, 1),
    ),
    max_size=8,
    unique_by=lambda each: each.id,
)


@given(NODES, st.frozensets(st.sampled_from("abcdefgh")), st.integers(0, 1000))
def test_the_chosen_node_has_room_and_one_is_chosen_if_any_has(
    nodes: list[NodeInfo], without: frozenset[str], seed: int
) -> None:
    chooser = seeing(*nodes, seed=seed)
    fit = {each.id for each in nodes if each.free_slots and each.id not in without}
    chosen = where(chooser.choose(NEEDS, 0.0, without=without, patient=False))
    assert chosen in fit if fit else chosen == ""


@pytest.mark.simulation
@given(NODES, st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 6)), max_size=30))
def test_the_room_is_what_a_count_over_all_nodes_gives(
    nodes: list[NodeInfo], loads: list[tuple[str, int]]
) -> None:
    chooser = seeing(*nodes)
    for name, mine in loads:
        chooser.index.set_own_count(name, mine, 0.0)
    usable = [load for load in chooser.index.nodes.values() if not load.info.draining]
    expected = (sum(load.free for load in usable), sum(load.info.slots for load in usable))
    assert chooser.index.room(MODEL) == expected
    for each in nodes:
        chooser.index.remove(each.id)
    assert chooser.index.room(MODEL) == (0, 0)
    assert where(chooser.choose(NEEDS, 0.0)) == ""


def test_the_faster_of_two_nodes_is_taken() -> None:
    chooser = seeing(node("slow", speed=20), node("fast", speed=100))
    assert {where(chooser.choose(NEEDS, 0.0)) for _ in range(50)} == {"fast"}


def test_equal_nodes_share_by_their_slots() -> None:
    assert fill(seeing(node("small", slots=2), node("large", slots=6)), 4) == {"large": 3, "small": 1}


def test_a_node_that_fails_half_of_its_calls_must_be_twice_as_fast() -> None:
    chooser = seeing(node("shaky", speed=150, error_rate=0.5), node("sound", speed=100))
    assert where(chooser.choose(NEEDS, 0.0)) == "sound"


def test_a_node_whose_latest_calls_were_slow_is_avoided() -> None:
    chooser = seeing(node("tired", speed=150, slowdown=3), node("fresh", speed=100))
    assert where(chooser.choose(NEEDS, 0.0)) == "fresh"


def test_a_generation_waits_for_a_fast_node_rather_than_begin_on_a_far_slower_one() -> None:
    chooser = seeing(node("fast", speed=200, slots=2), node("slow", speed=5, slots=2))
    chooser.index.set_own_count("fast", 2, 0.0)
    waits = chooser.choose(NEEDS, 0.0)
    assert isinstance(waits, Deferral)
    assert waits.until is not None
    assert 0 < waits.until < 25  # seconds the slow one would take
    assert where(chooser.choose(NEEDS, 1.0, waited_s=waits.until)) == "slow"
    assert where(chooser.choose(NEEDS, 0.0, patient=False)) == "slow"
    assert where(chooser.choose(NEEDS, 0.0, ahead=200)) == "slow"


def test_no_generation_waits_for_a_node_that_is_about_as_fast() -> None:
    chooser = seeing(node("full", speed=60, slots=2, running=2), node("free", speed=50))
    assert where(chooser.choose(NEEDS, 0.0)) == "free"


def test_labels_are_filters() -> None:
    chooser = seeing(
        node("a", labels={"region": "eu"}, speed=10),
        node("b", labels={"region": "us"}, speed=100),
        node("c", accelerators=("H100",), speed=100),
    )
    assert {where(chooser.choose(needing(region="eu"), 0.0)) for _ in range(20)} == {"a"}
    assert where(chooser.choose(needing(region="asia"), 0.0)) == ""
    assert where(chooser.choose(needing(accelerator="H100"), 0.0)) == "c"
    assert where(chooser.choose(needing(node="b"), 0.0)) == "b"
    assert chooser.can_run(needing(region="us"))
    assert not chooser.can_run(needing(region="asia"))


@pytest.mark.parametrize("label", [{"tenants": "acme, globex"}, {"tenant": "acme"}])
def test_a_node_of_tenants_serves_only_them(label: dict[str, str]) -> None:
    chooser = seeing(node("theirs", labels=label))
    assert where(chooser.choose(NEEDS, 0.0)) == ""
    assert where(chooser.choose(needing(tenant="initech"), 0.0)) == ""
    assert where(chooser.choose(needing(tenant="acme"), 0.0)) == "theirs"


def test_a_tenant_may_use_nodes_without_tenants() -> None:
    assert where(seeing(node("anyone")).choose(needing(tenant="acme"), 0.0)) == "anyone"


def test_a_changed_label_counts_at_once() -> None:
    chooser = seeing(node("a", labels={"region": "eu"}))
    assert where(chooser.choose(needing(region="eu"), 0.0)) == "a"
    chooser.index.put(node("a", labels={"region": "us"}), 1.0)
    assert where(chooser.choose(needing(region="eu"), 1.0)) == ""
    assert where(chooser.choose(needing(region="us"), 1.0)) == "a"


def test_a_long_prompt_goes_where_it_fits_and_anywhere_if_nowhere() -> None:
    chooser = seeing(node("short", context=2048, speed=500), node("long", context=32_768, speed=50))
    assert where(chooser.choose(needing(prompt_tokens=9_000), 0.0)) == "long"
    assert where(chooser.choose(needing(prompt_tokens=500), 0.0)) == "short"
    assert where(chooser.choose(needing(prompt_tokens=300_000), 0.0)) != ""


def test_light_work_goes_to_the_edge_and_heavy_work_to_the_strong() -> None:
    chooser = seeing(
        node("edge", speed=50, labels={"tier": "edge"}), node("strong", speed=100, accelerators=("H100",))
    )
    assert where(chooser.choose(needing(demand=Demand.LIGHT), 0.0)) == "edge"
    assert where(chooser.choose(needing(demand=Demand.ORDINARY), 0.0)) == "strong"
    assert where(chooser.choose(needing(demand=Demand.HEAVY), 0.0)) == "strong"


def test_many_dispatchers_with_the_same_stale_view_do_not_pile_on_one_node() -> None:
    nodes = [node(f"n{number}", speed=100 + number, slots=64) for number in range(20)]
    got: dict[str, int] = {}
    for seed in range(400):
        name = where(seeing(*nodes, seed=seed).choose(NEEDS, 0.0))
        got[name] = got.get(name, 0) + 1
    assert len(got) >= 15
    assert max(got.values()) < 400 * 0.2


def test_a_node_that_comes_back_with_an_idle_report_attracts_no_herd() -> None:
    chooser = seeing(*(node(f"n{number}", slots=100, running=60) for number in range(4)))
    chooser.index.remove("n0")
    chooser.index.put(node("n0", slots=100, running=0), 10.0)
    for name in ("n1", "n2", "n3"):
        chooser.index.put(node(name, slots=100, running=60), 10.0)
    assert fill(chooser, 60, now=10.0).get("n0", 0) == 0
    for name in ("n0", "n1", "n2", "n3"):
        chooser.index.put(node(name, slots=100, running=60), 15.0)
    assert where(chooser.choose(NEEDS, 15.0)) != ""


def test_a_node_without_recent_reports_is_the_last_choice() -> None:
    chooser = seeing(node("frozen", speed=120), node("well"))
    chooser.index.put(node("well"), STALE_S)
    assert where(chooser.choose(NEEDS, STALE_S)) == "well"


def test_a_refusal_counts_until_the_node_reports_again() -> None:
    chooser = seeing(node("a", slots=2))
    chooser.index.refused("a", 0.0)
    assert where(chooser.choose(NEEDS, 0.0)) == ""
    chooser.index.put(node("a", slots=2), 0.2)
    assert where(chooser.choose(NEEDS, 0.2)) == "a"
    chooser.index.refused("a", 0.3)
    chooser.index.trust_report("a", 0.4)
    assert where(chooser.choose(NEEDS, 0.4)) == "a"


def test_a_report_counts_our_own_generations_once() -> None:
    chooser = seeing(node("a", slots=4))
    chooser.index.set_own_count("a", 3, 0.0)
    chooser.index.put(node("a", slots=4, running=3), 0.2)
    assert chooser.index.room(MODEL) == (1, 4)
    chooser.index.set_own_count("a", 0, 0.3)
    assert chooser.index.room(MODEL) == (4, 4)


def test_beyond_its_share_a_dispatcher_leaves_a_slot_that_became_free_to_all() -> None:
    chooser = seeing(node("a", slots=4))
    chooser.index.set_own_count("a", 4, 0.0)
    chooser.index.put(node("a", slots=4, running=4), 0.1)
    chooser.index.set_own_count("a", 3, 0.2)
    assert chooser.index.room(MODEL) == (1, 4)
    chooser.index.set_slot_share(SlotShare(dispatchers=2), 0.2)
    assert chooser.index.room(MODEL) == (0, 4)
    chooser.index.put(node("a", slots=4, running=3), 0.3)
    assert chooser.index.room(MODEL) == (1, 4)
    chooser.index.set_own_count("a", 1, 0.4)
    assert chooser.index.room(MODEL) == (3, 4)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 1000))
def test_the_shares_of_all_dispatchers_add_up_to_all_slots_at_any_rotation(
    dispatchers: int, slots: int, number: int
) -> None:
    shares = [SlotShare(dispatchers, number + rank).share(slots) for rank in range(dispatchers)]
    assert sum(shares) == slots
    assert max(shares) - min(shares) <= 1


def test_a_failing_node_gets_no_work_even_when_it_is_the_only_one_and_is_tested_by_one_call() -> None:
    chooser = seeing(node("only"))
    for _ in range(5):
        chooser.choose(NEEDS, 0.0)
        chooser.ended(MODEL, "only", Outcome.FAILED, 0.0)
    assert chooser.index.room(MODEL) == (0, 0)
    waits = chooser.choose(NEEDS, 0.0)
    assert isinstance(waits, Deferral)
    assert waits.until is not None
    probe = chooser.choose(NEEDS, waits.until)
    assert where(probe) == "only"
    assert not isinstance(probe, Deferral)
    assert probe.probe
    assert isinstance(chooser.choose(NEEDS, waits.until), Deferral)
    chooser.ended(MODEL, "only", Outcome.SUCCEEDED, waits.until + 1, probe=True)
    assert where(chooser.choose(NEEDS, waits.until + 1)) == "only"
    assert chooser.index.room(MODEL) == (4, 4)


def test_a_breaker_is_of_one_model_on_one_node() -> None:
    chooser = seeing(node("a"), node("b"))
    for _ in range(5):
        chooser.ended(MODEL, "a", Outcome.FAILED, 0.0)
    assert {where(chooser.choose(NEEDS, 0.0)) for _ in range(20)} == {"b"}


def test_a_call_is_slow_only_against_what_was_to_be_expected() -> None:
    chooser = seeing(node("a", speed=50))
    bounded = needing(output_tokens=100)
    assert chooser.outcome(bounded, "a", 4.0) is Outcome.SUCCEEDED
    assert chooser.outcome(bounded, "a", 60.0) is Outcome.SUCCEEDED  # its length was not limited
    limited = type(bounded)(model=MODEL, output_tokens=100, bounded=True)
    assert chooser.outcome(limited, "a", 60.0) is Outcome.SLOW


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("put", "remove", "load", "fail", "well", "tick")),
            st.sampled_from("abc"),
            st.integers(0, 4),
        ),
        max_size=60,
    ),
    st.integers(0, 100),
)
def test_no_sequence_of_events_makes_it_choose_what_is_not_there(
    events: list[tuple[str, str, int]], seed: int
) -> None:
    chooser, now, there = seeing(seed=seed), 0.0, set()
    for kind, name, number in events:
        now += number
        if kind == "put":
            chooser.index.put(node(name, running=number), now)
            there.add(name)
        elif kind == "remove":
            chooser.index.remove(name)
            there.discard(name)
        elif kind == "load":
            chooser.index.set_own_count(name, number, now)
        elif kind in ("fail", "well"):
            outcome = Outcome.FAILED if kind == "fail" else Outcome.SUCCEEDED
            for _ in range(3):
                chooser.ended(MODEL, name, outcome, now)
        chosen = where(chooser.choose(NEEDS, now, patient=False))
        assert chosen in there | {""}
        free, slots = chooser.index.room(MODEL)
        assert 0 <= free <= slots <= 4 * len(there)
        if chosen:
            assert chooser.index.nodes[chosen].free > 0
