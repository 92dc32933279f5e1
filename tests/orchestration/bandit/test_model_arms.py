"""`auto` among several models: it finds the best one, keeps to it, and asks several while that teaches."""

from __future__ import annotations

from statistics import fmean

import pytest

from orchestration.bandit.bandit import arm_cost, best, choose
from orchestration.query_analysis.analysis import analyse
from orchestration.query_analysis.profiles import Candidates, arms
from orchestration.trust.counts import Counts
from orchestration.trust.observation import Observation, VoterAnswer
from orchestration.trust.records import Cost, KindRecord
from orchestration.trust.trust import Trust
from tests.orchestration.bandit.model_world import PATTERNS, QUESTION, World

ONE_STANDS_OUT = {"ash": 0.6, "beech": 0.92, "cedar": 0.8, "elm": 0.7, "zelkova": 0.62}
SEEDS = range(8)


def known(**shares: float) -> KindRecord:
    """A record in which users judged 200 answers of each model."""
    return KindRecord(
        models={
            name: {"user": Counts(right=200 * share, wrong=200 * (1 - share))}
            for name, share in shares.items()
        }
    )


def trusted(record: KindRecord, *, audit: bool = False) -> Trust:
    return Trust(record.models, vote_vs_best=record.vote_vs_best, learns=True, audit=audit, kind="reasoning")


def offered(*names: str) -> Candidates:
    return Candidates(models=names, panel=names, tokens=dict.fromkeys(names, 300.0))


@pytest.mark.simulation
def test_with_words_the_best_model_is_found_within_50_questions() -> None:
    worlds = [World(ONE_STANDS_OUT, seed=seed).go(50) for seed in SEEDS]
    first = [world.first for world in worlds]
    assert first.count("beech") >= len(worlds) - 1
    assert fmean(world.go(50).quality(since=50) for world in worlds) > 0.90


@pytest.mark.simulation
def test_without_a_word_it_is_found_within_100_by_how_models_agree() -> None:
    worlds = [World(ONE_STANDS_OUT, says=lambda run, right: None, seed=seed).go(100) for seed in SEEDS]
    first = [world.first for world in worlds]
    assert first.count("beech") >= len(worlds) - 1
    assert fmean(world.go(40).quality(since=100) for world in worlds) > 0.90


@pytest.mark.parametrize(
    "shares",
    [ONE_STANDS_OUT, {"ash": 0.5, "beech": 0.55, "cedar": 0.9}, {"ash": 0.85, "beech": 0.85, "cedar": 0.3}],
    ids=["one stands out", "three", "two alike"],
)
@pytest.mark.simulation
def test_after_200_questions_less_than_a_point_is_lost_to_the_best_model(shares: dict[str, float]) -> None:
    kept = [World(shares, seed=seed).go(300).quality(since=200) for seed in SEEDS]
    assert fmean(kept) >= max(shares.values()) - 0.01


@pytest.mark.simulation
def test_a_model_that_was_replaced_by_a_worse_one_is_left_within_100_questions() -> None:
    for seed in range(4):
        world = World({"ash": 0.95, "beech": 0.8, "cedar": 0.6}, seed=seed).go(150)
        world.shares["ash"] = 0.3
        world.go(140)
        assert world.taken(since=250).get("ash", 0) < 0.15


def test_a_thousand_words_of_one_caller_that_others_contradict_do_not_turn_the_choice() -> None:
    world = World({"ash": 0.9, "beech": 0.6, "cedar": 0.6}).go(120)
    for name, word in (("ash", 0.0), ("beech", 1.0)) * 500:
        answers = (VoterAnswer(model=name, group=0),)
        seen = Observation(source="user", quality=word, answers=answers, caller="mallory")
        world.record = world.record.after(seen, world.trust())
    assert world.go(150).taken(since=200).get("beech", 0) < 0.1


def test_while_models_are_not_known_all_are_asked_and_the_reason_is_told() -> None:
    ways = arms(QUESTION, PATTERNS, (), offered("ash", "beech", "cedar"))
    record = KindRecord()
    chosen = [choose(ways, record, f"r.{n}", explore=0, trust=trusted(record)) for n in range(40)]
    assert all(each.arm.pattern == "ensemble" and each.audit for each in chosen)
    assert (
        chosen[0].reason == "which of 3 models is the best is not clear yet: their answers together show it"
    )


def test_a_model_that_is_known_to_be_the_best_answers_alone_and_the_reason_is_told() -> None:
    ways = arms(QUESTION, PATTERNS, (), offered("ash", "beech", "cedar"))
    record = known(ash=0.5, beech=0.91, cedar=0.45)
    chosen = [choose(ways, record, f"r.{n}", explore=0, trust=trusted(record)) for n in range(200)]
    assert {(each.arm.model, each.arm.pattern) for each in chosen} == {("beech", "single")}
    assert chosen[0].reason == "beech is right in 91% of 200 judged answers to reasoning questions"


def test_a_panel_answers_where_models_are_near_each_other() -> None:
    names = ("ash", "beech", "cedar", "elm", "fir")
    record = known(**dict.fromkeys(names, 0.6))
    ways = arms(QUESTION, PATTERNS, (), offered(*names))
    chosen = [choose(ways, record, f"r.{n}", explore=0, trust=trusted(record)).arm for n in range(50)]
    assert [arm.pattern for arm in chosen].count("ensemble") > 40


def test_where_votes_were_wrong_against_the_most_trusted_voter_it_answers_alone() -> None:
    names = ("ash", "beech", "cedar", "elm", "fir")
    record = known(**dict.fromkeys(names, 0.6)).model_copy(update={"vote_vs_best": Counts(right=5, wrong=30)})
    ways = arms(QUESTION, PATTERNS, (), offered(*names))
    chosen = [choose(ways, record, f"r.{n}", explore=0, trust=trusted(record)) for n in range(50)]
    assert {each.arm.pattern for each in chosen if not each.audit} == {"single"}


def test_a_few_runs_ask_all_models_however_clear_the_record_is() -> None:
    ways = arms(QUESTION, PATTERNS, (), offered("ash", "beech", "cedar"))
    record = known(ash=0.5, beech=0.95, cedar=0.45)
    chosen = [choose(ways, record, f"r.{n}", explore=0.05, trust=trusted(record)) for n in range(2000)]
    assert 0.03 < fmean(each.audit for each in chosen) < 0.07
    assert {each.arm.model for each in chosen if not each.audit} == {"beech"}


def test_where_no_panel_is_offered_trying_others_costs_at_most_half_a_point() -> None:
    poem = analyse("Write a poem about the moon")
    names = [f"model {number}" for number in range(8)]
    for gap in (0.02, 0.1, 0.2, 0.4, 0.8):
        shares = {name: 0.9 if name == "model 0" else 0.9 - gap for name in names}
        record = known(**shares)
        ways = arms(poem, PATTERNS, (), offered(*names))
        assert {arm.pattern for arm in ways} == {"single"}
        tried = [choose(ways, record, f"r.{n}", explore=1, trust=trusted(record)).arm for n in range(400)]
        assert 0.05 * fmean(0.9 - shares[arm.model] for arm in tried) < 0.006


def test_of_models_that_are_as_good_the_one_that_writes_less_answers() -> None:
    record = known(ash=0.9, beech=0.9)
    record = record.model_copy(
        update={"costs": {"lively/single/ash": Cost(runs=20, tokens=4000, seconds=60)}}
    )
    ways = arms(analyse("Write a poem about the moon"), PATTERNS, (), offered("ash", "beech"))
    chosen = [choose(ways, record, f"r.{n}", explore=0, trust=trusted(record)).arm.model for n in range(200)]
    assert chosen.count("beech") > 150
    never_run = next(arm for arm in ways if arm.model == "beech")
    assert arm_cost(record, never_run) == pytest.approx(300 / 4000 / 2)


def test_a_word_on_a_model_that_answered_alone_is_counted_once_as_the_models() -> None:
    answers = (VoterAnswer(model="org/ash", group=0),)
    seen = Observation(
        source="user", quality=1, answers=answers, arm="strict/single/org/ash", tokens=50, caller="alice"
    )
    record = KindRecord().after(seen, Trust())
    assert record.arms == {}
    assert record.models["org/ash"]["user"].right == 1
    assert record.costs["strict/single/org/ash"].runs == 1


def test_several_models_are_offered_for_easy_questions_and_one_model_changes_nothing() -> None:
    easy = analyse("What is 12 * 14?")
    assert {arm.pattern for arm in arms(easy, PATTERNS, (), offered("ash", "beech", "cedar"))} >= {
        "single",
        "ensemble",
    }
    assert arms(easy, PATTERNS, (), offered("ash")) == arms(easy, PATTERNS)
    small_talk = arms(analyse("hi there"), PATTERNS, (), offered("ash", "beech", "cedar"))
    assert [arm.model for arm in small_talk] == ["ash", "beech", "cedar"]


def test_without_learning_the_most_trusted_model_answers() -> None:
    ways = arms(QUESTION, PATTERNS, (), offered("beech", "ash", "cedar"))
    assert best(ways).arm.model == "beech"
