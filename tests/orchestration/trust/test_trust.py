"""How trust weighs models, and when it holds a vote for decided: what holds whatever was seen."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.trust.counts import Counts
from orchestration.trust.early_stop import SAME_ERROR, forecast_lead
from orchestration.trust.lengths import AnswerLength, AnswerLengths
from orchestration.trust.observation import Observation, Source, VoterAnswer
from orchestration.trust.panel import choose_panel
from orchestration.trust.records import KindRecord
from orchestration.trust.trust import MAX_WEIGHT, MIN_WEIGHT, Trust, pair_key

MODELS = (
    "gpt-4o",
    "gpt-4o-mini",
    "claude-3-haiku",
    "gemini-1.5-flash",
    "Qwen/Qwen2.5-72B-Instruct",
    "qwen2.5:72b-instruct-q4_K_M",
    "my-model",
)
COPIES = ("meta-llama/Llama-3.1-70B-Instruct", "llama3.1:70b-instruct-q4_K_M", "us.meta.llama3-1-70b-v1:0")
OTHERS = ("gpt-4o", "claude-3-haiku", "gemini-1.5-flash", "qwen2.5-72b-instruct", "mistral-large")

counts = st.builds(Counts, right=st.floats(0, 1e9), wrong=st.floats(0, 1e9))
sources = st.dictionaries(st.sampled_from(["user", "test", "judge", "vote"]), counts, max_size=4)
trusts = st.builds(
    Trust,
    models=st.dictionaries(st.sampled_from(MODELS), sources, max_size=5),
    other_kinds=st.dictionaries(st.sampled_from(MODELS), counts, max_size=5),
    vote_vs_best=counts,
)
splits = st.lists(st.sampled_from(range(5)), min_size=len(MODELS), max_size=len(MODELS))
"""For each model: 0 to 2 is its group, 3 means not voted yet, 4 not in the panel."""


def split(places: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Groups without empty ones, and who is out."""
    groups = [[name for name, at in zip(MODELS, places, strict=True) if at == group] for group in range(3)]
    return [group for group in groups if group], [m for m, at in zip(MODELS, places, strict=True) if at == 3]


@settings(max_examples=150, deadline=None)
@given(trusts, splits)
def test_weights_and_probabilities_keep_their_bounds(trust: Trust, places: list[int]) -> None:
    groups, out = split(places)
    for model in MODELS:
        share = trust.accuracy(model)
        assert 0 <= share.low <= share.mean <= share.high <= 1
        assert MIN_WEIGHT <= trust.weight(model) <= MAX_WEIGHT
    right = trust.posterior(dict(enumerate(groups)))
    assert all(0 <= each <= 1 for each in right.values())
    assert sum(right.values()) <= 1 + 1e-9
    groups.sort(key=trust.group_weight, reverse=True)
    seen = forecast_lead(trust, groups, out)
    assert 0 <= seen.probability <= 1
    answers = [VoterAnswer(model=m, group=at) for at, group in enumerate(groups) for m in group]
    for quality in (None, 0.0, 0.5, 1.0):
        for credit in trust.credits(answers, quality).values():
            assert sum(credit) == pytest.approx(1)
            assert min(credit) >= -1e-9
        vote, best = trust.vote_vs_best_credits(answers, quality or 0.0)
        assert 0 <= vote <= 1
        assert 0 <= best <= 1


@settings(max_examples=150, deadline=None)
@given(trusts, st.sampled_from(MODELS), st.sampled_from(["user", "test", "judge", "vote"]), st.floats(0, 1e6))
def test_more_evidence_of_being_right_never_lowers_a_weight(
    trust: Trust, model: str, source: Source, more: float
) -> None:
    known = dict(trust.models.get(model, {}))
    better = known | {source: known.get(source, Counts()).plus(more, 0)}
    worse = known | {source: known.get(source, Counts()).plus(0, more)}
    before = trust.weight(model)
    assert replace(trust, models={**trust.models, model: better}).weight(model) >= before - 1e-9
    assert replace(trust, models={**trust.models, model: worse}).weight(model) <= before + 1e-9
    other_kinds = trust.other_kinds.get(model, Counts())
    for found, sign in ((other_kinds.plus(more, 0), 1), (other_kinds.plus(0, more), -1)):
        if other_kinds.total + more <= 40:  # beyond its cap it is its share that counts
            after = replace(trust, other_kinds={**trust.other_kinds, model: found}).weight(model)
            assert sign * (after - before) >= -1e-9


@settings(max_examples=100, deadline=None)
@given(
    trusts, st.lists(st.sampled_from(MODELS), min_size=1, max_size=5, unique=True), st.sampled_from(MODELS)
)
def test_a_further_vote_never_weighs_less_than_nothing_nor_more_than_it_would_alone(
    trust: Trust, group: list[str], model: str
) -> None:
    added = trust.group_weight([*group, model]) - trust.group_weight(group)
    assert -1e-9 <= added <= trust.weight(model) + 1e-9


@settings(max_examples=100, deadline=None)
@given(trusts, splits)
def test_the_more_voters_agree_with_the_leader_the_surer_is_its_lead(trust: Trust, places: list[int]) -> None:
    groups, out = split(places)
    groups.sort(key=trust.group_weight, reverse=True)
    if not groups or not out:
        return
    chance = forecast_lead(trust, groups, out).probability
    joined = forecast_lead(trust, [[*groups[0], out[0]], *groups[1:]], out[1:]).probability
    assert joined >= chance - 0.03  # leads are rounded to LEAD_STEP


def test_a_larger_lead_is_a_surer_one() -> None:
    chances = []
    for right in range(0, 200, 10):
        trust = Trust({"a": {"user": Counts(right=right, wrong=20)}, "b": {}, "c": {}, "d": {}})
        chances.append(forecast_lead(trust, [["a"]], ["b", "c", "d"]).probability)
    assert chances == sorted(chances)
    assert chances[-1] > chances[0]


@settings(max_examples=60, deadline=None)
@given(trusts, splits)
def test_a_lead_that_is_certain_is_turned_by_no_votes_that_are_out(trust: Trust, places: list[int]) -> None:
    groups, out = split(places)
    groups.sort(key=trust.group_weight, reverse=True)
    if not groups:
        return
    others = sum(map(trust.weight, out))
    lead = trust.group_weight(groups[0]) - max(map(trust.group_weight, groups[1:]), default=0.0)
    seen = forecast_lead(trust, groups, out)
    if lead > others + 1e-6:
        assert (seen.probability, seen.proven) == (1.0, True)
    if seen.probability == 1.0 and seen.proven and out:
        for votes in itertools.islice(itertools.product(range(len(groups) + 1), repeat=len(out)), 300):
            ends = [[*group] for group in groups] + [[]]
            for model, at in zip(out, votes, strict=True):
                ends[at].append(model)
            assert trust.group_weight(ends[0]) > max(map(trust.group_weight, ends[1:])) - 1e-6


def test_nobody_leads_an_empty_vote_and_a_whole_one_is_over() -> None:
    assert forecast_lead(Trust(), [], ["a"]).probability == 0
    assert forecast_lead(Trust(), [["a"], ["b"]], []).probability == 1


def test_copies_of_one_model_count_for_little_more_than_one() -> None:
    trust = Trust(prior=lambda model: 0.7)
    alone = trust.group_weight(COPIES[:1])
    assert trust.group_weight(COPIES) == pytest.approx(1.5 * alone)
    assert trust.group_weight(OTHERS[:2]) > trust.group_weight(COPIES)
    assert trust.group_weight(("gpt-4o", "gpt-4o-mini")) == pytest.approx(1.75 * alone)


def test_copies_teach_nothing_of_each_other_and_are_asked_once() -> None:
    answers = [VoterAnswer(model=name, group=0) for name in COPIES]
    assert Trust().credits(answers, None) == {}
    two = [*answers, VoterAnswer(model="gpt-4o", group=1)]
    assert Trust().credits(two, None) == {}, "nobody knows which of two is right"
    assert choose_panel(Trust(), [*COPIES, "gpt-4o"], 16, lambda _: None) == [COPIES[0], "gpt-4o"]


def test_names_that_answer_alike_are_asked_once_but_where_a_run_audits() -> None:
    trust = Trust(pairs={pair_key("blue", "green"): Counts(right=20)})
    names = ["blue", "green", "red"]
    assert choose_panel(trust, names, 16, lambda _: None) == ["blue", "red"]
    assert choose_panel(replace(trust, audit=True), names, 16, lambda _: None) == names


Says = Mapping[str, float]
"""How often each model is right."""


def votes(accuracies: Says, questions: int, seed: int, options: int = 4) -> list[dict[str, int]]:
    """What each answers; 0 is right. A wrong answer is a common one with the share `SAME_ERROR`."""
    draws = np.random.default_rng(seed)
    found = []
    for _ in range(questions):
        common = int(draws.integers(1, options))
        found.append(
            {
                model: 0
                if draws.random() < right
                else common
                if draws.random() < SAME_ERROR
                else int(draws.integers(1, options))
                for model, right in accuracies.items()
            }
        )
    return found


def learnt(asked: Sequence[Mapping[str, int | None]], trust: Trust | None = None) -> KindRecord:
    """The record after these votes, without any feedback."""
    record = KindRecord()
    for answers in asked:
        now = Trust(record.models, vote_vs_best=record.vote_vs_best, pairs=record.pairs)
        groups: dict[int, list[str]] = {}
        for model, said in answers.items():
            if said is not None:
                groups.setdefault(said, []).append(model)
        ranked = sorted(groups, key=lambda said: -now.group_weight(groups[said]))
        at = {said: number for number, said in enumerate(ranked)}
        seen = [
            VoterAnswer(model=model, group=None if said is None else at[said])
            for model, said in answers.items()
        ]
        record = record.after(Observation(answers=seen), now)
    return record


def accuracy_of(record: KindRecord, asked: Sequence[Mapping[str, int | None]]) -> float:
    """The share of votes that are right by this record."""
    trust = Trust(record.models, pairs=record.pairs)
    right = 0
    for answers in asked:
        groups: dict[int, list[str]] = {}
        for model, said in answers.items():
            if said is not None:
                groups.setdefault(said, []).append(model)
        right += max(groups, key=lambda said: trust.group_weight(groups[said])) == 0
    return right / len(asked)


def test_a_voter_that_always_answers_a_loses_its_weight_without_any_feedback() -> None:
    draws = np.random.default_rng(2)
    asked: list[dict[str, int | None]] = []
    for answers in votes(dict.fromkeys(OTHERS[:4], 0.75), 400, seed=1):
        right_is = int(draws.integers(4))  # the letter of the right option; wrong ones follow it
        asked.append({**answers, "parrot": (0 - right_is) % 4})
    record = learnt(asked[:200])
    trust = Trust(record.models)
    assert trust.weight("parrot") < 0.5 * min(trust.weight(name) for name in OTHERS[:4])
    without = [{name: said for name, said in answers.items() if name != "parrot"} for answers in asked[200:]]
    assert accuracy_of(record, asked[200:]) >= accuracy_of(record, without) - 0.01


def test_a_voter_that_no_one_can_read_loses_its_weight() -> None:
    asked: list[dict[str, int | None]] = [
        {**answers, "mumbler": None} for answers in votes(dict.fromkeys(OTHERS[:3], 0.8), 100, seed=3)
    ]
    trust = Trust(learnt(asked).models)
    assert trust.weight("mumbler") == MIN_WEIGHT


def test_where_all_are_wrong_alike_only_a_users_words_teach_it() -> None:
    """Without them agreement is all there is; with them all lose, and who dissented loses less: nobody said
    that it was right."""
    answers = [VoterAnswer(model=name, group=0) for name in OTHERS[:4]]
    answers.append(VoterAnswer(model=OTHERS[4], group=1))
    record = KindRecord()
    for number in range(10):
        now = Trust(record.models)
        record = record.after(Observation(answers=answers), now)
        record = record.after(
            Observation(source="user", quality=0, answers=answers, caller=f"user {number}"), now
        )
    trust = Trust(record.models)
    assert all(trust.weight(name) == MIN_WEIGHT for name in OTHERS[:4])
    assert trust.weight(OTHERS[4]) > 0.4
    alone = learnt([dict.fromkeys(OTHERS[:4], 1)] * 40)
    assert all(Trust(alone.models).accuracy(name).mean < 0.98 for name in OTHERS[:4])


def proven_at(accuracies: Says, weight: float = 200) -> Trust:
    return Trust(
        {
            name: {"user": Counts(right=weight * right, wrong=weight * (1 - right))}
            for name, right in accuracies.items()
        }
    )


@pytest.mark.simulation
@pytest.mark.parametrize(
    "accuracies",
    [
        dict.fromkeys(OTHERS, 0.75),
        dict(zip(OTHERS, (0.92, 0.85, 0.8, 0.7, 0.6), strict=True)),
        dict(zip(OTHERS, (0.55, 0.5, 0.5, 0.45, 0.4), strict=True)),
    ],
    ids=["alike", "spread", "weak"],
)
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_votes_that_records_end_are_turned_no_more_often_than_said(
    accuracies: Says, confidence: float
) -> None:
    trust, ended, flips, unheard = proven_at(accuracies), 0, 0, 0
    asked = votes(accuracies, 1_000, seed=4)
    order = sorted(accuracies, key=trust.weight, reverse=True)
    for answers in asked:
        for heard in range(1, len(order)):
            groups = ranked(trust, answers, order[:heard])
            seen = forecast_lead(trust, groups, order[heard:])
            if seen.proven and seen.probability >= confidence:
                ended += 1
                unheard += len(order) - heard
                flips += ranked(trust, answers, order)[0][0] not in groups[0]
                break
    assert ended > 250
    assert unheard / (len(asked) * len(order)) > 0.1
    error = 1 - confidence
    assert flips / ended <= error + 2 * (error * (1 - error) / ended) ** 0.5


def ranked(trust: Trust, answers: Mapping[str, int], voters: Sequence[str]) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for name in voters:
        groups.setdefault(answers[name], []).append(name)
    return sorted(groups.values(), key=lambda group: -trust.group_weight(group))


written = st.builds(AnswerLength, st.integers(0, 10**9), st.floats(0, 1e9))
ended = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.lists(written, max_size=3), max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(ended, max_size=8), ended, st.integers(0, 10**9))
def test_expected_lengths_are_never_negative_or_infinite(
    before: list[dict[str, list[AnswerLength]]], now: dict[str, list[AnswerLength]], position: int
) -> None:
    lengths = AnswerLengths()
    for each in before:
        lengths.learn("factual", each)
    for model in ("a", "b", "new"):
        left = lengths.remaining("factual", model, now, position)
        assert left >= 0
        assert isfinite(left)
        for value in (lengths.late_after_s("factual", model), lengths.expected("factual", model)):
            assert value is None or (value > 0 and isfinite(value))


@pytest.mark.parametrize("stopped_at", [0, 40])
def test_what_the_stopped_would_have_written_is_told_within_a_tenth(stopped_at: int) -> None:
    """Lengths as of three models of different habits, of questions of different length."""
    draws, lengths = np.random.default_rng(5), AnswerLengths()
    means = {"terse": 60.0, "usual": 200.0, "wordy": 500.0}
    told = truth = 0.0
    for question in range(600):
        of_question = float(draws.lognormal(0, 0.4))
        tokens = {name: int(mean * of_question * draws.lognormal(0, 0.35)) for name, mean in means.items()}
        whole = {name: [AnswerLength(count, count / 50)] for name, count in tokens.items()}
        heard = {name: whole[name] for name in ("terse", "usual")}
        if question >= 100 and tokens["wordy"] > stopped_at:
            told += lengths.remaining("factual", "wordy", heard, stopped_at)
            truth += tokens["wordy"] - stopped_at
        lengths.learn("factual", whole if question % 3 == 0 else heard)
    assert told == pytest.approx(truth, rel=0.1)


@pytest.mark.simulation
@pytest.mark.parametrize(
    "shares", [dict.fromkeys(OTHERS, 0.7), dict.fromkeys(OTHERS, 0.6) | {OTHERS[0]: 0.9}]
)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_model_that_answers_as_another_does_is_found_out_and_rules_no_vote(
    shares: Says, noise: float
) -> None:
    """Without that the two are taken for right whenever they agree, and soon outvote all others."""
    draws, asked = np.random.default_rng(6), []
    for answers in votes(shares, 500, seed=8):
        echo = answers[OTHERS[1]] if draws.random() >= noise else int(draws.integers(4))
        asked.append({**answers, "echo": echo})
    record = learnt(asked[:250])
    trust = Trust(record.models, pairs=record.pairs)
    assert trust.are_copies("echo", OTHERS[1])
    assert trust.distinct([*OTHERS, "echo"]) == [[OTHERS[0]], [OTHERS[1], "echo"], *([m] for m in OTHERS[2:])]
    without = [{name: said for name, said in answers.items() if name != "echo"} for answers in asked]
    alone = learnt(without[:250])
    assert accuracy_of(record, asked[250:]) >= accuracy_of(alone, without[250:]) - 0.03


def test_models_that_are_mostly_right_are_not_taken_for_copies() -> None:
    record = learnt(votes(dict.fromkeys(OTHERS, 0.93), 400, seed=9))
    trust = Trust(record.models, pairs=record.pairs)
    assert trust.distinct(OTHERS) == [[name] for name in OTHERS]
