"""Which of those that wait starts next, where nodes differ."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from orchestration.messages import NodeInfo
from orchestration.placement import Choice, Chooser, Deferral, Needs, PendingGeneration
from tests.orchestration.placement.nodes import needing, node

LONG = needing(output_tokens=400)
SHORT = needing(output_tokens=4)


def seeing(*nodes: NodeInfo) -> Chooser:
    chooser = Chooser(random=Random(1))
    for each in nodes:
        chooser.index.put(each, 0.0)
    return chooser


def slow_is_free() -> Chooser:
    """The fast node is full, the slow one empty."""
    return seeing(node("fast", speed=200, running=4), node("slow", speed=10))


def lined_up(*needs: Needs, waited_s: float = 0.0) -> list[PendingGeneration]:
    return [PendingGeneration(each, waited_s) for each in needs]


def started(found: tuple[int, Choice] | Deferral) -> tuple[int, str] | None:
    """Whose turn it is, and where."""
    return None if isinstance(found, Deferral) else (found[0], found[1].node.id)


def test_a_short_one_starts_on_the_slow_node_while_the_long_one_before_it_waits_for_the_fast() -> None:
    waiting = lined_up(LONG, SHORT, waited_s=1.0)
    assert started(slow_is_free().start_one(waiting, 0.0, hurry=False)) == (1, "slow")


def test_a_generation_that_gains_nothing_more_by_waiting_is_not_overtaken() -> None:
    waiting = lined_up(LONG, SHORT, waited_s=100.0)
    assert started(slow_is_free().start_one(waiting, 0.0, hurry=False)) == (0, "slow")


def test_in_a_hurry_no_slot_stays_free_and_the_one_that_loses_least_takes_it() -> None:
    waiting = lined_up(LONG, SHORT)
    calm = slow_is_free().start_one(waiting, 0.0, hurry=False)
    assert isinstance(calm, Deferral)
    assert calm.by_choice
    assert calm.until is not None
    assert calm.until < 1, "it says when the short one has waited enough"
    assert started(slow_is_free().start_one(waiting, 0.0, hurry=True)) == (1, "slow")


def test_a_generation_that_needs_a_full_node_delays_no_other() -> None:
    chooser = seeing(node("eu-1", labels={"region": "eu"}, running=4), node("us-1", labels={"region": "us"}))
    waiting = lined_up(needing(region="eu"), needing(region="us"))
    assert started(chooser.start_one(waiting, 0.0, hurry=False)) == (1, "us-1")
    assert started(chooser.start_one(waiting[:1], 0.0, hurry=True)) is None


def test_equal_ones_start_in_their_order() -> None:
    chooser = seeing(node("a", running=3), node("b", running=3))
    assert started(chooser.start_one(lined_up(LONG, LONG, LONG), 0.0, hurry=False)) in ((0, "a"), (0, "b"))


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=16), st.lists(st.integers(0, 4), max_size=4))
def test_in_a_hurry_one_starts_exactly_if_there_is_room(lengths: list[int], running: list[int]) -> None:
    nodes = [node(f"n{at}", speed=10 * 4**at, running=load) for at, load in enumerate(running)]
    waiting = lined_up(*(needing(output_tokens=length) for length in lengths))
    found = seeing(*nodes).start_one(waiting, 0.0, hurry=True)
    assert (started(found) is not None) == any(each.free_slots for each in nodes)
