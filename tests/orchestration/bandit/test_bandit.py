"""What judgements teach of ways to answer: which arm is taken, and how often others are tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.bandit.bandit import arm_cost, best, choose, expected
from orchestration.query_analysis.analysis import analyse
from orchestration.query_analysis.profiles import Arm, arms
from orchestration.trust.counts import Counts
from orchestration.trust.observation import Observation
from orchestration.trust.records import Cost, KindRecord
from orchestration.trust.trust import Trust

PATTERNS = ("single", "ensemble", "maestro", "self-consistency")
HARD = "Compare nuclear and wind power for an island: cost and waste. Weigh the risks and recommend one."
ARMS = arms(analyse(HARD), PATTERNS)


def arm_of(pattern: str) -> Arm:
    return next(arm for arm in ARMS if arm.pattern == pattern)


def after(record: KindRecord, seen: Observation) -> KindRecord:
    return record.after(seen, Trust(record.models, vote_vs_best=record.vote_vs_best))


def word(arm: str, quality: float, **more: object) -> Observation:
    return Observation(source="user", quality=quality, arm=arm, **more)  # type: ignore[arg-type]


def taught(record: KindRecord, is_good: Callable[[Arm], float], runs: int, *, first: int = 0) -> KindRecord:
    """The record after so many runs, each judged by a user who likes an arm's answer that often."""
    users = np.random.default_rng(first)
    for number in range(first, first + runs):
        arm = choose(ARMS, record, f"run.{number}").arm
        quality = 1.0 if users.random() < is_good(arm) else 0.0
        record = after(record, word(arm.name, quality, caller=f"user {number % 20}"))
    return record


def shares(record: KindRecord, runs: int = 2000, **settings: Any) -> Counter[str]:
    """How often each pattern is chosen, in runs that are not judged."""
    taken = Counter(choose(ARMS, record, f"later.{n}", **settings).arm.pattern for n in range(runs))
    return Counter({name: round(100 * count / runs) for name, count in taken.items()})


def test_before_anything_is_judged_the_priors_decide_nearly_always_and_say_so() -> None:
    chosen = [choose(ARMS, KindRecord(), f"r.{n}", explore=0) for n in range(300)]
    assert Counter(each.arm.name for each in chosen).most_common(1)[0][0] in {
        best(ARMS).arm.name,
        ARMS[1].name,
    }
    assert {each.reason for each in chosen} == {"has the best prior, no run was judged yet"}


def test_judgements_turn_a_prior_that_was_wrong() -> None:
    assert best(ARMS).arm.pattern == "single"
    record = taught(KindRecord(), lambda arm: 0.9 if arm.pattern == "ensemble" else 0.2, 250)
    taken = shares(record)
    assert taken["ensemble"] > 85
    assert expected(arm_of("single"), record.arm(arm_of("single").name)) < 0.6


def test_a_way_that_was_good_and_no_longer_is_loses_its_place() -> None:
    record = taught(KindRecord(), lambda arm: 0.9 if arm.pattern == "ensemble" else 0.2, 250)
    record = taught(record, lambda arm: 0.9 if arm.pattern == "single" else 0.1, 400, first=1000)
    assert shares(record)["single"] > 80


def test_a_floor_of_exploration_stays_however_clear_the_record_is() -> None:
    hated = KindRecord(arms={arm.name: Counts(wrong=1000) for arm in ARMS if arm.pattern != "single"})
    others = 100 - shares(hated, 4000, explore=0.05)["single"]
    of_any = sum(arm.pattern != "single" for arm in ARMS) / len(ARMS)
    assert others == pytest.approx(100 * 0.05 * of_any, abs=1.5)
    assert shares(hated, explore=0)["single"] == 100


def test_of_two_that_are_as_good_the_cheaper_one_is_taken() -> None:
    maestro, single = arm_of("maestro"), arm_of("single")
    record = KindRecord(
        arms={arm.name: Counts(right=300, wrong=100) for arm in (maestro, single)},
        costs={maestro.name: Cost(runs=50, tokens=4000, seconds=60), single.name: Cost(runs=50, tokens=200)},
    )
    assert arm_cost(record, maestro) == 1
    assert shares(record, explore=0)["maestro"] < 5
    assert shares(record, explore=0, cost_weight=0)["maestro"] > 25


def test_the_same_run_with_the_same_record_chooses_the_same() -> None:
    record = taught(KindRecord(), lambda arm: 0.5, 50)
    assert all(choose(ARMS, record, f"r.{n}") == choose(ARMS, record, f"r.{n}") for n in range(50))


def test_easy_questions_and_small_talk_offer_one_model_only() -> None:
    for text in ("hi there", "What is the capital of France?", "What is 12 * 14?"):
        assert {arm.pattern for arm in arms(analyse(text), PATTERNS)} == {"single"}
    assert {arm.pattern for arm in arms(analyse(HARD), ("single",))} == {"single"}


def test_a_word_that_replaces_another_leaves_the_record_as_if_it_had_been_the_only_one() -> None:
    base = KindRecord(arms={"a/single": Counts(right=5, wrong=5)})
    once = after(base, word("a/single", 1))
    twice = after(after(base, word("a/single", 0)), word("a/single", 1, previous_quality=0.0))
    assert twice.arms["a/single"].right == pytest.approx(once.arms["a/single"].right, rel=0.02)
    assert twice.arms["a/single"].wrong == pytest.approx(once.arms["a/single"].wrong, rel=0.02)


def test_what_a_run_cost_is_kept_whoever_judges_it() -> None:
    record = after(KindRecord(), Observation(arm="x/maestro", tokens=800, seconds=12))
    assert record.costs["x/maestro"] == Cost(runs=1, tokens=800, seconds=12)
    assert record.arms == {}


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 1), st.booleans()), max_size=30))
def test_no_order_of_words_makes_a_count_negative_or_grow_without_bound(
    said: list[tuple[str, float, bool]],
) -> None:
    record, last = KindRecord(), None
    for arm, quality, replaces in said:
        before = last if replaces else None
        record, last = after(record, word(arm, quality, previous_quality=before)), quality
    total = sum(counts.total for counts in record.arms.values())
    assert 0 <= total <= 3 * len(said) + 1e-6
    assert KindRecord.model_validate_json(record.model_dump_json()) == record
