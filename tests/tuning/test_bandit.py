"""What judgements teach: which arm is taken, how often others are tried, what a model's word counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import BackendFailed, Cancelled, InvalidRequest, NoNode
from orchestration.tuning.analysis import analyse
from orchestration.tuning.bandit import best, choose, cost, expected
from orchestration.tuning.profiles import Arm, arms
from orchestration.tuning.records import (
    LEAST_WEIGHT,
    MOST_WEIGHT,
    Cost,
    Judged,
    Record,
    Tally,
    critic_score,
    judged_by_failure,
    judged_by_itself,
    judged_by_user,
    weights,
)

PATTERNS = ("single", "ensemble", "maestro", "self-consistency")
HARD = "Compare nuclear and wind power for an island: cost and waste. Weigh the risks and recommend one."
ARMS = arms(analyse(HARD), PATTERNS)


def arm_of(pattern: str) -> Arm:
    return next(arm for arm in ARMS if arm.pattern == pattern)


def taught(record: Record, is_good: Callable[[Arm], float], runs: int, *, first: int = 0) -> Record:
    """The record after so many runs, each judged by a user who likes an arm's answer that often."""
    users = np.random.default_rng(first)
    for number in range(first, first + runs):
        arm = choose(ARMS, record, f"run.{number}").arm
        score = 1.0 if users.random() < is_good(arm) else -1.0
        record = record.after(judged_by_user(arm.name, score, ("m",)))
    return record


def shares(record: Record, runs: int = 2000, **settings: float) -> Counter[str]:
    """How often each pattern is taken, in runs that nobody judges."""
    taken = Counter(choose(ARMS, record, f"later.{n}", **settings).arm.pattern for n in range(runs))
    return Counter({name: round(100 * count / runs) for name, count in taken.items()})


def test_before_anything_is_judged_the_priors_decide_nearly_always_and_say_so() -> None:
    chosen = [choose(ARMS, Record(), f"r.{n}", explore=0) for n in range(300)]
    assert Counter(each.arm.name for each in chosen).most_common(1)[0][0] in {
        best(ARMS).arm.name,
        ARMS[1].name,
    }
    assert {each.why for each in chosen} == {"thought best before any run was judged"}


def test_judgements_turn_a_prior_that_was_wrong() -> None:
    assert best(ARMS).arm.pattern == "single"
    record = taught(Record(), lambda arm: 0.9 if arm.pattern == "ensemble" else 0.2, 250)
    taken = shares(record)
    assert taken["ensemble"] > 85
    assert expected(arm_of("single"), record.tally(arm_of("single").name)) < 0.6


def test_a_way_that_was_good_and_no_longer_is_loses_its_place() -> None:
    record = taught(Record(), lambda arm: 0.9 if arm.pattern == "ensemble" else 0.2, 250)
    record = taught(record, lambda arm: 0.9 if arm.pattern == "single" else 0.1, 400, first=1000)
    assert shares(record)["single"] > 80


def test_a_floor_of_exploration_stays_however_clear_the_record_is() -> None:
    hated = Record(arms={arm.name: Tally(good=0, bad=1000) for arm in ARMS if arm.pattern != "single"})
    others = 100 - shares(hated, 4000, explore=0.05)["single"]
    of_any = sum(arm.pattern != "single" for arm in ARMS) / len(ARMS)
    assert others == pytest.approx(100 * 0.05 * of_any, abs=1.5)
    assert shares(hated, explore=0)["single"] == 100


def test_of_two_that_are_as_good_the_cheaper_one_is_taken() -> None:
    maestro, single = arm_of("maestro"), arm_of("single")
    record = Record(
        arms={arm.name: Tally(good=300, bad=100) for arm in (maestro, single)},
        costs={maestro.name: Cost(runs=50, tokens=4000, seconds=60), single.name: Cost(runs=50, tokens=200)},
    )
    assert cost(record, maestro) == 1
    assert shares(record, explore=0)["maestro"] < 5
    assert shares(record, explore=0, cost_weight=0)["maestro"] > 25


def test_the_same_run_with_the_same_record_chooses_the_same() -> None:
    record = taught(Record(), lambda arm: 0.5, 50)
    assert all(choose(ARMS, record, f"r.{n}") == choose(ARMS, record, f"r.{n}") for n in range(50))


def test_easy_questions_and_small_talk_offer_one_model_only() -> None:
    for text in ("hi there", "What is the capital of France?", "What is 12 * 14?"):
        assert {arm.pattern for arm in arms(analyse(text), PATTERNS)} == {"single"}
    assert {arm.pattern for arm in arms(analyse(HARD), ("single",))} == {"single"}


def test_a_word_that_replaces_another_leaves_the_record_as_if_it_had_been_the_only_one() -> None:
    base = Record(arms={"a/single": Tally(good=5, bad=5)}, models={"m": Tally(good=1, bad=1)})
    bad, good = judged_by_user("a/single", -1, ("m",)), judged_by_user("a/single", 1, ("m",))
    once = base.after(good)
    twice = base.after(bad).after(
        Judged(arm=good.arm, quality=good.quality, weight=good.weight, models=good.models, instead_of=bad)
    )
    assert twice.arms["a/single"].good == pytest.approx(once.arms["a/single"].good, rel=0.02)
    assert twice.arms["a/single"].bad == pytest.approx(once.arms["a/single"].bad, rel=0.02)
    assert twice.models["m"].bad == pytest.approx(once.models["m"].bad, rel=0.02)


def test_a_critics_verdict_and_the_voices_of_an_ensemble_teach_without_any_user() -> None:
    report = {"maestro": {"verdicts": [{"score": 3}, {"score": 10}]}}
    assert critic_score(report) == 1
    judged = judged_by_itself("x/maestro", report, tokens=800, seconds=12)
    record = Record().after(judged)
    assert record.tally("x/maestro").good == 0.5
    assert record.costs["x/maestro"] == Cost(runs=1, tokens=800, seconds=12)
    voices = [
        {"model": "right", "answer": "4", "agrees": True},
        {"model": "right", "answer": "4", "agrees": True},
        {"model": "wrong", "answer": "5", "agrees": False},
        {"model": "late", "answer": "", "agrees": False},
    ]
    record = Record().after(judged_by_itself(None, {"ensemble": {"voices": voices}}, tokens=1, seconds=1))
    assert weights(record)["right"] > 1 > weights(record)["wrong"]
    assert "late" not in weights(record)
    assert record.arms == {}
    alone = {"ensemble": {"voices": voices[:2]}}
    assert weights(Record().after(judged_by_itself(None, alone, tokens=1, seconds=1))) == {}


def test_a_verdict_of_several_criteria_counts_as_their_mean() -> None:
    verdict = {"scores": {"right": 10, "clear": 1}}
    assert critic_score({"maestro": {"verdicts": [verdict]}}) == pytest.approx(0.5)


def test_a_failure_of_the_way_to_answer_counts_against_it_and_one_of_machines_does_not() -> None:
    judged = judged_by_failure("x/maestro", BackendFailed("no form"))
    assert judged is not None
    assert Record().after(judged).tally("x/maestro").bad == 1
    for error in (NoNode("gone"), Cancelled("left"), InvalidRequest("nothing asked")):
        assert judged_by_failure("x/maestro", error) is None


@pytest.mark.parametrize(
    "report",
    [{}, {"maestro": None}, {"maestro": {"verdicts": []}}, {"maestro": {"verdicts": [{"score": "10"}]}}],
)
def test_a_report_without_a_verdict_judges_nothing(report: dict[str, object]) -> None:
    assert critic_score(report) is None
    assert Record().after(judged_by_itself("a", report, tokens=1, seconds=1)).arms == {}


def test_a_models_word_counts_between_a_half_and_twice_as_much() -> None:
    good, bad = judged_by_user(None, 1, ("good",)), judged_by_user(None, -1, ("bad",))
    record = Record()
    for _ in range(100):
        record = record.after(good).after(bad)
    assert weights(record) == {"good": MOST_WEIGHT, "bad": LEAST_WEIGHT}
    few = Record().after(good)
    assert 1 < weights(few)["good"] < 1.3, "one word is no proof"


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.floats(-1, 1), st.booleans()),
        max_size=30,
    )
)
def test_no_order_of_words_makes_a_count_negative_or_grow_without_bound(
    said: list[tuple[str, float, bool]],
) -> None:
    record, last = Record(), None
    for arm, score, replaces in said:
        judged = judged_by_user(arm, score, (arm,))
        if replaces and last is not None:
            judged = Judged(arm=arm, quality=judged.quality, weight=judged.weight, instead_of=last)
        record, last = record.after(judged), judged
    total = sum(tally.weight for tally in record.arms.values())
    assert 0 <= total <= 3 * len(said) + 1e-6
    assert Record.model_validate_json(record.model_dump_json()) == record
