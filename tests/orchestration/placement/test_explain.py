from __future__ import annotations

from random import Random

from orchestration.placement import Chooser, Outcome, explain
from orchestration.placement.explain import MAX_CANDIDATES
from tests.orchestration.placement.nodes import MODEL, NEEDS, needing, node, where


def test_candidates_come_with_their_scores_and_the_others_with_why_not() -> None:
    chooser = Chooser(random=Random(1))
    for each in (
        node("fast", speed=100),
        node("slow", speed=10),
        node("full", slots=2, running=2),
        node("drains", draining=True),
        node("fails"),
        node("mute"),
        node("theirs", labels={"tenants": "acme"}),
    ):
        chooser.index.put(each, 0.0)
    for _ in range(5):
        chooser.ended(MODEL, "fails", Outcome.FAILED, 0.0)
    chooser.index.set_silent("mute", True, 0.0)
    found = explain(chooser.index, NEEDS, 0.0, dispatcher="d")
    assert [each.node for each in found.candidates[:2]] == ["fast", "slow"]
    assert found.candidates[0].cost < found.candidates[1].cost
    assert found.candidates[0].decode_tokens_per_s > found.candidates[1].decode_tokens_per_s
    why = {each.node: each.left_out for each in found.candidates}
    assert why["fast"] == why["slow"] == ""
    assert "slots are taken" in why["full"]
    assert "draining" in why["drains"]
    assert "failed repeatedly" in why["fails"]
    assert "does not answer" in why["mute"]
    assert "reserved for its tenants" in why["theirs"]
    assert found.nodes == 7


def test_the_best_explained_candidate_is_the_chosen_one() -> None:
    for seed in range(20):
        random = Random(seed)
        chooser = Chooser(random=random)
        for name in "ab":
            chooser.index.put(node(name, speed=random.uniform(10, 200), running=random.randrange(4)), 0.0)
        best = explain(chooser.index, NEEDS, 0.0).candidates[0].node
        assert where(chooser.choose(NEEDS, 0.0)) == best


def test_a_missing_label_is_named() -> None:
    chooser = Chooser(random=Random(1))
    chooser.index.put(node("a", labels={"region": "us"}), 0.0)
    (candidate,) = explain(chooser.index, needing(region="eu"), 0.0).candidates
    assert candidate.left_out == "label region=eu is required, it has us"


def test_only_the_best_candidates_of_a_large_cluster_are_listed() -> None:
    chooser = Chooser(random=Random(1))
    for number in range(200):
        chooser.index.put(node(f"n{number}", speed=10 + number), 0.0)
    found = explain(chooser.index, NEEDS, 0.0)
    assert found.nodes == 200
    assert len(found.candidates) == MAX_CANDIDATES
    assert found.candidates[0].node == "n199"
