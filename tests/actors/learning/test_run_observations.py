"""What becomes of a run's checks, verdicts and flips: from its report to the record, and to the figures."""

from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner
from prometheus_client import REGISTRY

from actors.agents.settings import AgentsSettings
from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus
from actors.cli.main import root
from actors.learning.feedback import Feedback, FeedbackCounter
from actors.learning.run_feedback import RunFeedback, run_feedback_bucket
from actors.learning.settings import LearningSettings
from orchestration.messages import Finish
from orchestration.patterns import StepResult
from orchestration.query_analysis.features import KINDS, Kind
from orchestration.roles import RoleOverride
from orchestration.trust.observation import Observation, VoterAnswer
from orchestration.trust.trust import judge_reliability
from tests.actors.agents.clusters import cluster
from tests.actors.agents.test_runs import make_run, perform
from tests.actors.learning.test_learning import tuner
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.orchestration.patterns.test_debate_flips import EQUAL, debated

ANSWER = StepResult(text="7", finish=Finish(reason="stop", node="n", model="one"), seconds=1.0)
RISEN = {"one": 0.65, "two": 0.65, "three": 0.83}


def figure(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"{name}_total", labels) or 0.0


async def test_a_judge_is_measured_by_what_users_say_of_the_answers_that_it_judged(nats: RunningNats) -> None:
    """The echo's critic gives 1 of 10 to all, and is right where its user says so too."""
    settings = AgentsSettings(drain_timeout_s=5, auto=LearningSettings(flush_s=0.05))
    async with cluster(nats.url, EchoBackend(EchoSettings(repeat=False)), settings) as running:
        run = make_run(running.streams, "maestro", "What is the capital of France?")
        _, ended, _ = await perform(running.streams, run)
        verdict = ended.report["maestro"]["verdicts"][-1]
        assert (verdict["model"], verdict["own_family"]) == ("echo", True)
        entry = await run_feedback_bucket(running.bus).get(run.id)
        assert entry is not None
        known = RunFeedback.model_validate_json(entry.value or b"")
        assert known.verdicts == {"echo": pytest.approx((verdict["score"] - 1) / 9)}
        store = running.team.services.tuner.store
        await FeedbackCounter(running.bus).submit(Feedback(run=run.id, score=-1))
        await eventually(lambda: "echo" in store.record(known.kind).judges)
        record = store.record(known.kind)
        assert record.judges["echo"].right == pytest.approx(1 - known.verdicts["echo"])
        assert judge_reliability(record.judges, "echo").mean > 0.65
        shown = await asyncio.to_thread(CliRunner().invoke, root, ["tuning", "show", "--nats", nats.url])
        assert "as users say" in shown.stdout
        assert "judge" not in record.models.get("echo", {}), "a judge says nothing of its own family"


async def test_a_team_works_on_the_most_trusted_model_unless_a_role_names_its_own(
    nats: RunningNats, bus: Bus
) -> None:
    nodes = [EchoBackend(EchoSettings(models=(name,), repeat=False)) for name in ("able", "usual")]
    settings = AgentsSettings(drain_timeout_s=5, roles={"critic": RoleOverride(models=("usual",))})
    async with cluster(nats.url, nodes[0], settings, others=nodes[1:]) as running:
        store = running.team.services.tuner.store
        for kind in KINDS:
            right = Observation(source="user", quality=1, answers=(VoterAnswer(model="able", group=0),))
            await store.add(kind, [right] * 20)
        await eventually(lambda: all("able" in store.record(kind).models for kind in KINDS))
        asked = await asyncio.gather(
            *(
                perform(running.streams, make_run(running.streams, pattern, "Where is Paris?"))
                for pattern in ("maestro", "decompose")
            )
        )
    models = {(step.agent, step.model) for _, ended, _ in asked for step in ended.steps}
    assert ("critic", "usual") in models
    assert {model for agent, model in models if agent != "critic"} == {"able"}


@pytest.mark.parametrize(("priors", "flip", "word"), [(RISEN, "taken", "bad"), (EQUAL, "refused", "good")])
async def test_debates_that_flip_are_counted_and_what_users_say_of_them_too(
    nats: RunningNats, bus: Bus, priors: dict[str, float], flip: str, word: str
) -> None:
    _, context = await debated(("7", "7", "8"), ("8", "8", "8"), priors=priors)
    run = context.run.model_copy(update={"id": f"flipped.{flip}"})
    async with tuner(nats.url) as tuning:
        of = tuning.advisor(run, "alice")
        assert of.kind is not None
        labels = {"kind": of.kind, "outcome": flip}
        before = figure("orchestra_debate_flips", **labels)
        judged = figure("orchestra_debate_flips_judged", **labels, rating=word)
        await of.ended(context, ANSWER, 1.0)
        assert figure("orchestra_debate_flips", **labels) == before + 1
    await FeedbackCounter(bus).submit(Feedback(run=run.id, score=-1 if word == "bad" else 1))
    assert figure("orchestra_debate_flips_judged", **labels, rating=word) == judged + 1


async def test_what_was_checked_of_a_teams_steps_is_learnt_of_who_wrote_them(nats: RunningNats) -> None:
    _, context = await debated(("7", "7", "8"), ("7", "7", "7"))
    context.report.sections = {
        "code": [{"step": "task 1", "model": "coder", "parses": True, "examples": 2, "passed": 2}],
        "sums": [{"step": "task 2", "model": "thinker", "right": 1, "wrong": 1}],
    }
    async with tuner(nats.url) as tuning:
        await tuning.advisor(context.run.model_copy(update={"id": "team.1"}), "alice").ended(
            context, ANSWER, 1.0
        )
        store = tuning.store

        def learnt(kind: Kind, model: str) -> bool:
            return "test" in store.record(kind).models.get(model, {})

        await eventually(lambda: learnt("code", "coder") and learnt("reasoning", "thinker"))
        assert store.record("code").models["coder"]["test"].right == pytest.approx(1)
        assert store.record("reasoning").models["thinker"]["test"].wrong == pytest.approx(0.5)


async def test_first_answers_of_a_debate_are_credited_by_what_its_user_says(
    nats: RunningNats, bus: Bus
) -> None:
    priors = {"first": 0.7, "second": 0.7, "third": 0.7}
    _, context = await debated(("7", "7", "8"), ("7", "7", "7"), priors=priors)
    run = context.run.model_copy(update={"id": "debated.1"})
    async with tuner(nats.url) as tuning:
        of = tuning.advisor(run, "alice")
        await of.ended(context, ANSWER, 1.0)
        kind = of.kind or "factual"
        await FeedbackCounter(bus).submit(Feedback(run=run.id, score=1))
        await eventually(lambda: "user" in tuning.store.record(kind).models.get("third", {}))
        models = tuning.store.record(kind).models
    right = {name: models[name]["user"].right for name in priors}
    assert right == {"first": pytest.approx(1), "second": pytest.approx(1), "third": pytest.approx(0)}
