"""How user ratings, tests, judges and votes change a record, in any order and number."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.trust.caller_counts import MAX_CALLERS, MAX_RATINGS, MIN_RATINGS, rating_of
from orchestration.trust.counts import Counts
from orchestration.trust.observation import Observation, Source, VoterAnswer
from orchestration.trust.records import MAX_ARMS, MAX_JUDGES, MAX_MODELS, MAX_PAIRS, KindRecord
from orchestration.trust.trust import Trust, judge_reliability

MODELS = ("gpt-4o", "claude-3-haiku", "qwen2.5-72b-instruct", "llama-3.1-8b-instruct")


def trust_in(record: KindRecord) -> Trust:
    return Trust(record.models, vote_vs_best=record.vote_vs_best, pairs=record.pairs)


def taught(record: KindRecord, seen: Iterable[Observation]) -> KindRecord:
    for each in seen:
        record = record.after(each, trust_in(record))
    return record


def word(quality: float, *models: str, caller: str = "alice", **more: Any) -> Observation:
    """A user's, on an answer that all `models` gave."""
    answers = [VoterAnswer(model=model, group=0) for model in models or ("m",)]
    return Observation(source="user", quality=quality, answers=answers, arm="a/single", caller=caller, **more)


def words_on(record: KindRecord, model: str = "m") -> Counts:
    return record.models.get(model, {}).get("user", Counts())


def of_many(quality: float, words: int) -> list[Observation]:
    return [word(quality, caller=f"user {number % 20}") for number in range(words)]


@pytest.mark.parametrize("honest", [60, 100, 200])
def test_a_thousand_words_of_one_caller_do_not_outweigh_those_of_others(honest: int) -> None:
    record = taught(KindRecord(), of_many(1, honest))
    before = words_on(record)
    for batch in range(10):
        record = taught(record, [word(0, caller="mallory")] * 100)
        after = words_on(record)
        assert after.right > after.wrong, f"after {100 * (batch + 1)} words"
    assert after.right > 0.6 * before.right, "nor do they wipe them out"
    assert after.wrong <= MIN_RATINGS + 2
    arm = record.arm("a/single")
    assert arm.right > arm.wrong
    assert trust_in(record).weight("m") > trust_in(record).weight("never seen")


def test_one_caller_who_floods_arms_alone_is_bounded_there_too() -> None:
    flood = [Observation(source="user", quality=0, arm="a/single", caller="mallory")] * 1_000
    arm = taught(KindRecord(), flood).arm("a/single")
    assert arm.wrong <= 3 * (MAX_RATINGS + 2)


def test_words_of_others_turn_what_a_thousand_words_of_one_said() -> None:
    record = taught(KindRecord(), [word(0, caller="mallory")] * 1_000)
    assert words_on(record).wrong <= MAX_RATINGS + 2
    record = taught(record, of_many(1, 75))
    after = words_on(record)
    assert after.right > after.wrong


def test_without_keys_all_are_one_caller_and_still_heard() -> None:
    for name in ("", "anonymous"):
        record = taught(KindRecord(), [word(1, caller=name)] * 1_000)
        record = taught(record, [word(0, caller=name)] * 250)
        after = words_on(record)
        assert after.wrong > after.right, "a model that was replaced is judged anew"


def test_who_is_one_of_many_callers_is_bounded_from_the_first_word_on() -> None:
    full = taught(KindRecord(), [word(1, caller=f"user {n}") for n in range(2 * MAX_CALLERS)])
    assert len(full.callers) == MAX_CALLERS
    before = words_on(full)
    after = words_on(taught(full, [word(0, caller="mallory")] * 1_000))
    assert after.wrong <= MIN_RATINGS + 2
    assert after.right > 0.6 * before.right


def flips(times: int, caller: str = "mallory") -> list[Observation]:
    """One run's word, taken back and given again."""
    return [
        word(float(number % 2 == 0), caller=caller, previous_quality=float(number % 2))
        for number in range(times)
    ]


@pytest.mark.parametrize("times", [2, 1_000])
def test_a_rating_that_is_changed_a_thousand_times_counts_as_one(times: int) -> None:
    base = taught(KindRecord(), [*of_many(1, 60), *of_many(0, 20)])
    once = taught(base, [word(0, caller="mallory")])
    often = taught(once, flips(times))
    for name in ("right", "wrong"):
        assert getattr(words_on(often), name) == pytest.approx(getattr(words_on(once), name), abs=1)
        counts = often.arm("a/single")
        assert getattr(counts, name) == pytest.approx(getattr(once.arm("a/single"), name), abs=3)
    others = {name: words for name, words in often.callers.items() if name != "mallory"}
    assert others == {name: words for name, words in once.callers.items() if name != "mallory"}


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_of_a_divided_vote_a_word_that_changes_a_thousand_times_is_one_word_too(first: float) -> None:
    groups = {"alpha": 0, "beta": 0, "gamma": 1, "delta": None}
    answers = [VoterAnswer(model=model, group=group) for model, group in groups.items()]
    record, before = KindRecord(), None
    for number in range(1_000):
        quality = first if number % 2 == 0 else 1 - first
        seen = Observation(
            source="user", quality=quality, answers=answers, caller="me", previous_quality=before
        )
        record, before = taught(record, [seen]), quality
    assert [words_on(record, model).total for model in groups] == pytest.approx([1, 1, 1, 1])
    assert record.vote_vs_best.total <= 1


def test_a_thousand_words_that_are_all_taken_back_change_no_more_than_a_callers_words_may() -> None:
    base = taught(KindRecord(), of_many(1, 100))
    said = taught(base, [word(1, caller="mallory")] * 1_000)
    back = taught(said, [word(0, caller="mallory", previous_quality=1.0)] * 1_000)
    after = words_on(back)
    assert after.wrong <= 2 * MIN_RATINGS
    assert after.right > after.wrong


def test_words_that_contradict_each_other_leave_a_model_as_likely_right_as_wrong() -> None:
    record = taught(KindRecord(), [word(float(number % 2)) for number in range(1_000)])
    assert trust_in(record).accuracy("m").mean == pytest.approx(0.5, abs=0.03)
    kept = trust_in(record).accuracy("m")
    assert kept.low < 0.5 < kept.high


def test_a_user_says_of_a_judge_once_whether_it_was_right_however_often_the_word_changes() -> None:
    said = word(1, verdicts={"judge": 1.0})
    once = taught(KindRecord(), [said])
    often = taught(
        once,
        [word(quality, verdicts={"judge": 1.0}, previous_quality=1 - quality) for quality in [0.0, 1.0] * 20],
    )
    assert often.judges["judge"].total == pytest.approx(once.judges["judge"].total, abs=0.01)
    assert often.judges["judge"].right == pytest.approx(1, abs=0.01)


def verdict(quality: float, judge: str, *models: str) -> Observation:
    answers = [VoterAnswer(model=model, group=0) for model in models]
    return Observation(source="judge", quality=quality, answers=answers, arm="single", judge=judge)


def test_a_judge_says_nothing_of_its_own_family() -> None:
    own, other = "gpt-4o-mini", "claude-3-haiku"
    praise = [verdict(1, "gpt-4o-2024-08-06", own)] * 200
    record = taught(KindRecord(), praise)
    assert record.models == {}
    assert record.arms == {}
    blame = [verdict(0, "gpt-4o-2024-08-06", other)] * 200
    record = taught(record, blame)
    assert record.models[other]["judge"].wrong > 0
    mixed = taught(KindRecord(), [verdict(1, "gpt-4o-2024-08-06", own, other)])
    assert set(mixed.models) == {other}
    assert mixed.arm("single").right > 0


def test_a_judge_that_users_contradict_is_no_longer_heard() -> None:
    """It praises its own and blames the others; users say that the others are right."""
    record = KindRecord()
    for number in range(60):
        judged = {"gpt-4o": 0.0}
        record = taught(record, [word(1, "claude-3-haiku", caller=f"u{number}", verdicts=judged)])
    assert judge_reliability(record.judges, "gpt-4o").mean < 0.2
    before = record.models
    record = taught(record, [verdict(0, "gpt-4o", "claude-3-haiku")] * 100)
    assert record.models["claude-3-haiku"].get("judge", Counts()).total == 0
    assert record.models["claude-3-haiku"]["user"] == before["claude-3-haiku"]["user"]
    assert trust_in(record).weight("claude-3-haiku") > 2


def test_a_judge_of_little_worth_does_not_wipe_out_what_better_ones_said() -> None:
    record = taught(KindRecord(judges={"good": Counts(right=50)}), [verdict(1, "good", "m")] * 50)
    before = record.models["m"]["judge"]
    poor = record.model_copy(update={"judges": {"poor": Counts(right=40, wrong=60)}})
    after = taught(poor, [verdict(0, "poor", "m")] * 1_000).models["m"]["judge"]
    assert after == before


def test_what_was_heard_of_last_is_kept_and_no_record_grows_without_bound() -> None:
    record = KindRecord()
    for number in range(2 * MAX_MODELS):
        name = f"model {number}"
        seen = Observation(
            source="user",
            quality=1,
            answers=[VoterAnswer(model=name, group=0)],
            arm=name,
            tokens=5,
            caller=name,
            verdicts={name: 1.0},
        )
        record = taught(record, [seen])
        assert name in record.models
        assert name in record.arms
        assert name in record.judges
        assert name in record.callers
    sizes = [len(each) for each in (record.models, record.arms, record.costs, record.judges, record.callers)]
    assert sizes == [MAX_MODELS, MAX_ARMS, MAX_ARMS, MAX_JUDGES, MAX_CALLERS]
    assert len(record.model_dump_json()) < 200_000


def test_the_pairs_of_many_panels_are_bounded() -> None:
    record = KindRecord()
    for number in range(40):
        answers = [VoterAnswer(model=f"model {number} {at}", group=at % 2) for at in range(16)]
        record = taught(record, [Observation(answers=answers)])
    assert len(record.pairs) == MAX_PAIRS
    assert len(record.model_dump_json()) < 300_000


def test_a_record_of_the_last_release_is_read_as_far_as_it_can_be() -> None:
    old = {
        "arms": {"a/single": {"good": 3, "bad": 1}},
        "costs": {"a/single": {"runs": 7, "tokens": 100, "seconds": 2}},
        "models": {"m": {"good": 3, "bad": 1}},
    }
    record = KindRecord.read(json.dumps(old).encode())
    assert record.costs["a/single"].runs == 7
    assert trust_in(record).accuracy("m").mean == trust_in(KindRecord()).accuracy("m").mean
    record = taught(record, [word(1)])
    assert words_on(record).right == 1
    assert record.arm("a/single").right == 3


def test_a_record_of_a_later_version_keeps_what_this_one_does_not_know() -> None:
    newer = {
        "models": {"m": {"user": {"right": 3, "wrong": 1, "seen": "today"}, "peer": {"right": 9}}},
        "arms": {"a": {"right": -1}, "b": {"right": 2}},
        "vote_vs_best": {"right": "many"},
        "callers": {"alice": 3, "bob": -1, "carol": "x"},
        "habits": {"m": [1, 2]},
    }
    record = KindRecord.read(json.dumps(newer).encode())
    assert record.models == {"m": {"user": Counts(right=3, wrong=1)}}
    assert set(record.arms) == {"b"}
    assert record.vote_vs_best == Counts()
    assert record.callers == {"alice": 3}
    after = json.loads(taught(record, [word(1)]).model_dump_json())
    assert after["habits"] == {"m": [1, 2]}


@pytest.mark.parametrize("value", [b"[]", b"3", b"{", b"\xff", b"null"])
def test_what_is_no_record_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"valid|expected|EOF|UTF"):
        KindRecord.read(value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1"])
def test_no_count_is_infinite_or_no_number(number: str) -> None:
    value = f'{{"models": {{"m": {{"user": {{"right": {number}}}, "vote": {{"right": 2}}}}}}}}'
    record = KindRecord.read(value.encode())
    assert record.models == {"m": {"vote": Counts(right=2)}}
    assert KindRecord.read(record.model_dump_json().encode()) == record


ANSWERS = st.lists(
    st.builds(
        VoterAnswer,
        model=st.sampled_from(MODELS),
        group=st.sampled_from([None, 0, 1, 2]),
        followed=st.booleans(),
    ),
    max_size=6,
)
SOURCES: Sequence[Source] = ("user", "test", "judge", "vote")
SEEN = st.builds(
    Observation,
    source=st.sampled_from(SOURCES),
    quality=st.one_of(st.none(), st.floats(0, 1)),
    answers=ANSWERS,
    arm=st.sampled_from([None, "a", "b"]),
    tokens=st.one_of(st.none(), st.floats(0, 1e9)),
    seconds=st.floats(0, 1e6),
    caller=st.sampled_from(["", "anonymous", "alice"]),
    judge=st.sampled_from(["", "gpt-4o-mini", "m"]),
    verdicts=st.dictionaries(st.sampled_from(["", "gpt-4o-mini"]), st.floats(0, 1), max_size=2),
    previous_quality=st.one_of(st.none(), st.floats(0, 1)),
)


@pytest.mark.simulation
@settings(max_examples=80, deadline=None)
@given(st.lists(SEEN, max_size=25))
def test_whatever_is_seen_a_record_stays_one_that_can_be_read(seen: list[Observation]) -> None:
    record = taught(KindRecord(), seen)
    assert KindRecord.read(record.model_dump_json().encode()) == record
    assert "null" not in record.model_dump_json()
    for model in MODELS:
        share = trust_in(record).accuracy(model)
        assert 0 <= share.low <= share.mean <= share.high <= 1
    assert all(0 <= judge_reliability(record.judges, judge).mean <= 1 for judge in record.judges)
    assert all(words <= len(seen) + 1e-6 for words in record.callers.values())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.booleans()), max_size=300))
def test_no_rating_counts_for_more_than_one_in_any_order_of_callers(
    said: list[tuple[str, bool]],
) -> None:
    callers: dict[str, float] = {}
    for caller, again in said:
        rating = rating_of(caller, callers, is_update=again)
        assert 0 < rating.weight <= 1
        assert 0 < rating.discount <= 1
        for other, words in callers.items():
            assert rating.callers[other] <= words + (rating.weight if other == caller else 0) + 1e-9
        callers = rating.callers
        fresh = rating_of("never heard", callers, is_update=False)
        assert fresh.weight == 1, "a caller who was not heard yet is heard in full"
