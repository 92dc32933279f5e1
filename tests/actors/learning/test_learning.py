"""What runs and users teach, kept in NATS: by several at once, for runs that are taken up, and off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from click.testing import CliRunner
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.agents.settings import AgentsSettings
from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus
from actors.bus.key_value import Bucket
from actors.cli.main import root
from actors.learning.feedback import Feedback, FeedbackCounter, NotEnded, UnknownRun
from actors.learning.record_store import RecordStore
from actors.learning.run_feedback import RunFeedback, run_feedback_bucket
from actors.learning.settings import LearningSettings
from actors.learning.tuner import Tuner
from orchestration.errors import BackendFailed
from orchestration.query_analysis.analysis import analyse
from orchestration.query_analysis.profiles import Candidates, arms
from orchestration.trust.observation import Observation, VoterAnswer
from tests.actors.agents.clusters import cluster, connection
from tests.actors.agents.test_runs import make_run, perform
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.orchestration.patterns.scripted import make_run as scripted_run

HARD = "Compare nuclear and wind power for an island: cost and waste. Weigh the risks and recommend one."
PATTERNS = ("single", "ensemble", "maestro")


@asynccontextmanager
async def tuner(url: str, **settings: object) -> AsyncIterator[Tuner]:
    async with connection(url, "tuner") as bus:
        made = Tuner(bus, LearningSettings.model_validate({"flush_s": 0.05} | settings))
        await made.start()
        yield made
        await made.stop()


async def test_a_run_of_auto_says_what_was_chosen_and_teaches_what_it_cost(
    nats: RunningNats, spans: InMemorySpanExporter
) -> None:
    settings = AgentsSettings(drain_timeout_s=5, auto=LearningSettings(flush_s=0.05))
    async with cluster(nats.url, EchoBackend(EchoSettings(repeat=False)), settings) as running:
        run = make_run(running.streams, "auto", "Write a poem about the moon")
        _, ended, _ = await perform(running.streams, run)
        said = ended.report["auto"]
        assert (said["kind"], said["pattern"]) == ("creative", "single")
        store = running.team.services.tuner.store
        arm = f"{said['profile']}/single"
        await eventually(lambda: arm in store.record("creative").costs)
        known = store.record("creative").costs[arm]
        assert known.runs == 1
        assert known.tokens == ended.finish.usage.prompt_tokens + ended.finish.usage.completion_tokens
    (span,) = [span for span in spans.get_finished_spans() if span.name == "invoke_workflow auto"][-1:]
    told = {name: span.attributes[f"orchestra.auto.{name}"] for name in ("kind", "pattern", "profile")}  # type: ignore[index]
    assert told == {name: said[name] for name in told}


async def test_records_of_several_coordinators_are_merged_without_losing_a_count(
    nats: RunningNats, bus: Bus
) -> None:
    stores = [RecordStore(bus) for _ in range(4)]
    answers = (VoterAnswer(model="m", group=0),)
    observation = Observation(source="test", quality=1, answers=answers, arm="a/single", tokens=10)
    await asyncio.gather(*(store.add("factual", [observation]) for store in stores for _ in range(10)))
    async with connection(nats.url, "reader") as other:
        reader = RecordStore(other)
        await reader.start()
        record = reader.record("factual")
        await reader.stop()
    assert record.costs["a/single"].runs == 40
    assert record.models["m"]["test"].right == pytest.approx((1 - 0.995**40) / 0.005)


async def test_a_run_that_is_taken_up_keeps_its_choice_whatever_was_learnt_since(nats: RunningNats) -> None:
    question = analyse(HARD)
    ways = arms(question, PATTERNS)
    run = scripted_run(HARD, id="taken.1", pattern="auto")
    async with tuner(nats.url, explore=0) as first, tuner(nats.url, explore=0) as second:
        chosen = await first.advisor(run, "alice").choose(run, question, ways)
        against = [
            Observation(source="user", quality=0, arm=chosen.arm.name, caller=f"user {n}") for n in range(100)
        ]
        await first.store.add(question.kind, against)
        await eventually(lambda: second.store.record(question.kind).arm(chosen.arm.name).wrong > 50)
        again = await second.advisor(run, "alice").choose(run, question, ways)
        assert again == chosen
        other = scripted_run(HARD, id="taken.2", pattern="auto")
        fresh = await second.advisor(other, "alice").choose(other, question, ways)
        assert fresh.arm != chosen.arm


async def test_a_run_that_is_taken_up_keeps_its_model_though_others_are_trusted_more_by_then(
    nats: RunningNats,
) -> None:
    question = analyse("Write a poem about the moon")
    run = scripted_run("Write a poem about the moon", id="taken.3", pattern="auto")
    before = arms(question, PATTERNS, (), Candidates(models=("ash", "beech")))
    later = arms(question, PATTERNS, (), Candidates(models=("cedar", "elm")))
    async with tuner(nats.url) as first, tuner(nats.url) as second:
        chosen = await first.advisor(run, "alice").choose(run, question, before)
        again = await second.advisor(run, "alice").choose(run, question, later)
    assert chosen.arm.model in ("ash", "beech")
    assert (again.arm.name, again.reason) == (chosen.arm.name, chosen.reason)


async def test_a_model_that_came_to_nothing_is_trusted_less(nats: RunningNats) -> None:
    question = analyse("Write a limerick about the sea")
    run = scripted_run("Write a limerick about the sea", id="failed.1", pattern="auto")
    ways = arms(question, PATTERNS, (), Candidates(models=("oak", "yew")))
    async with tuner(nats.url) as made:
        advice = made.advisor(run, "alice")
        model = (await advice.choose(run, question, ways)).arm.model
        advice.failed(BackendFailed("broken"))
        await eventually(lambda: made.store.record("creative").models.get(model))
        assert made.store.record("creative").models[model]["test"].wrong == pytest.approx(1 / 3)
        assert made.store.record("creative").arm(f"lively/single/{model}").total == 0


async def test_without_learning_the_usual_way_is_taken_and_nothing_is_kept(nats: RunningNats) -> None:
    settings = AgentsSettings(drain_timeout_s=5, auto=LearningSettings(learn=False))
    async with cluster(nats.url, EchoBackend(EchoSettings(repeat=False)), settings) as running:
        run = make_run(running.streams, "auto", "What is the capital of France?")
        _, ended, _ = await perform(running.streams, run)
        assert ended.report["auto"]["reason"] == "the usual way; learning is off"
        assert await run_feedback_bucket(running.bus).get(run.id) is None
        with pytest.raises(UnknownRun):
            await FeedbackCounter(running.bus).submit(Feedback(run=run.id, score=1))


async def test_a_run_goes_on_when_its_choice_cannot_be_kept(nats: RunningNats) -> None:
    question = analyse(HARD)
    ways = arms(question, PATTERNS)
    async with connection(nats.url, "gone") as bus:
        cut = Tuner(bus, LearningSettings())
    run = scripted_run(HARD, id="cut.1", pattern="auto")
    assert (await cut.advisor(run, "").choose(run, question, ways)).arm in ways
    cut.learn("reasoning", Observation(source="user", quality=1, arm="a"))
    await cut.flush()
    assert len(cut._waiting["reasoning"]) == 1, "it waits for the bus to come back"


async def test_what_users_say_counts_once_and_the_last_counts(bus: Bus) -> None:
    counter, store = FeedbackCounter(bus), RecordStore(bus)
    await store.start()
    known = RunFeedback(
        run="said.1",
        caller="alice",
        kind="code",
        pattern="single",
        arm="strict/single",
        answers=(VoterAnswer(model="m", group=0),),
    )
    await run_feedback_bucket(bus).put("said.1", known.encoded())
    with pytest.raises(NotEnded):
        await counter.submit(Feedback(run="said.1", score=1))
    await run_feedback_bucket(bus).put("said.1", known.model_copy(update={"state": "ended"}).encoded())

    async def heard(good: float, bad: float) -> None:
        def so() -> bool:
            counts = store.record("code").arm("strict/single")
            return abs(counts.right - good) < 0.1 and abs(counts.wrong - bad) < 0.1

        await eventually(so)

    first = await counter.submit(Feedback(run="said.1", score=-1, comment="no"))
    assert (first.score, first.replaced, first.pattern, first.kind) == (-1, None, "single", "code")
    await heard(0, 3)
    assert (await counter.submit(Feedback(run="said.1", score=1))).replaced == -1
    await heard(3, 0)
    await asyncio.gather(*(counter.submit(Feedback(run="chatcmpl-said.1", score=1)) for _ in range(6)))
    await heard(3, 0)
    assert store.record("code").models["m"]["user"].right == pytest.approx(1, abs=0.05)
    for run, allowed in (("said.1", "bob"), ("never.1", "alice")):
        with pytest.raises(UnknownRun, match=run):
            await counter.submit(Feedback(run=run, score=1), lambda caller, who=allowed: caller == who)  # type: ignore[misc]
    await store.stop()


async def test_a_models_record_weighs_its_vote(nats: RunningNats, bus: Bus) -> None:
    nodes = [EchoBackend(EchoSettings(models=(name,), repeat=False)) for name in ("wise", "rash")]
    settings = AgentsSettings(drain_timeout_s=5)
    async with cluster(nats.url, nodes[0], settings, others=nodes[1:]) as running:
        store = running.team.services.tuner.store
        observations = [
            Observation(source="user", quality=quality, answers=(VoterAnswer(model=model, group=0),))
            for model, quality in (("wise", 1), ("rash", 0))
        ]
        await store.add("factual", observations * 40)
        await eventually(lambda: store.record("factual").models.get("rash"))
        run = make_run(running.streams, "ensemble", "What is the capital of France?")
        _, ended, _ = await perform(running.streams, run)
    weights = {voice["model"]: voice["weight"] for voice in ended.report["ensemble"]["voices"]}
    assert weights["wise"] > 2.5
    assert weights["rash"] == 0.05


async def test_an_unreadable_record_begins_anew(bus: Bus) -> None:
    await Bucket(bus, "tuning").put("conversation", b'{"arms": 3}')
    store = RecordStore(bus)
    await store.add("conversation", [Observation(source="user", quality=1, arm="warm/single")])
    await store.start()
    assert store.record("conversation").arm("warm/single").right == 3
    await store.stop()


async def test_what_is_known_of_other_kinds_follows_every_change_of_their_records(bus: Bus) -> None:
    store = RecordStore(bus)
    await store.start()
    plain = store.trust("code").weight("m")
    observation = Observation(source="test", quality=1, answers=(VoterAnswer(model="m", group=0),))
    await store.add("creative", [observation] * 20)
    await eventually(lambda: store.trust("code").weight("m") > plain)
    first = store.trust("code").weight("m")
    await store.add("creative", [replace(observation, quality=0)] * 80)
    await eventually(lambda: store.trust("code").weight("m") < first)
    await store.reset("creative")
    await eventually(lambda: store.trust("code").weight("m") == plain)
    await store.stop()


async def test_one_callers_words_are_bounded_through_whatever_gateways_they_come(bus: Bus) -> None:
    counters, store, runs = (
        (FeedbackCounter(bus), FeedbackCounter(bus)),
        RecordStore(bus),
        run_feedback_bucket(bus),
    )
    await store.reset("creative")
    await store.start()

    async def performed(name: str, caller: str) -> None:
        answers = (VoterAnswer(model="m", group=0),)
        known = RunFeedback(
            run=name, caller=caller, kind="creative", pattern="single", state="ended", answers=answers
        )
        await runs.put(name, known.encoded())

    async def flood(counter: FeedbackCounter, first: int) -> None:
        for number in range(first, first + 100):
            await performed(f"mallory.{number}", "mallory")
            await counter.submit(Feedback(run=f"mallory.{number}", score=-1), by="mallory")

    for number in range(60):
        await performed(f"many.{number}", f"user {number}")
        await counters[number % 2].submit(Feedback(run=f"many.{number}", score=1))
    await asyncio.gather(flood(counters[0], 0), flood(counters[1], 100))
    await performed("other.1", "ann")
    await counters[0].submit(Feedback(run="other.1", score=1), by="mallory")

    def heard() -> bool:
        return sum(store.record("creative").callers.values()) > 60

    await eventually(heard)
    record = store.record("creative")
    words = record.models["m"]["user"]
    assert words.wrong < 30 < words.right
    assert "ann" not in record.callers, "a word is of who gives it, not of whose run it is about"
    await store.reset("creative")
    await store.stop()


async def test_models_that_answer_alike_are_shown(nats: RunningNats, bus: Bus) -> None:
    store = RecordStore(bus)
    votes = [
        tuple(VoterAnswer(model=name, group=at) for name, at in (("blue", 0), ("green", 0), ("red", 1)))
    ] * 15
    await store.add("creative", [Observation(answers=answers) for answers in votes])

    def shown() -> str:
        return CliRunner().invoke(root, ["tuning", "show", "--nats", nats.url]).stdout

    (row,) = [
        line for line in (await asyncio.to_thread(shown)).splitlines() if "blue" in line and "green" in line
    ]
    assert "94%" in row
    await store.reset("creative")
