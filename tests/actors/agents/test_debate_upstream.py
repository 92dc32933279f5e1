"""A debate of three models behind an upstream, two of which give up the right answer for the third's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from actors.agents.settings import AgentsSettings
from actors.learning.feedback import Feedback, FeedbackCounter
from actors.learning.run_feedback import RunFeedback, run_feedback_bucket
from orchestration.patterns.prompt_texts import ANSWERS_HEAD
from tests.actors.agents.clusters import stream_of, upstream_cluster
from tests.actors.agents.test_runs import make_run, perform
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.upstream import Request

QUESTION = "A hen lays 3 eggs a day. How many eggs does she lay in 4 days?"
FIRST = {"alder": "She lays 3 * 4 = 12 eggs.", "birch": "The answer is 12.", "cedar": "3 + 4 = 7. It is 7."}
CRITIQUE = json.dumps({"strengths": "they compute", "weaknesses": "one adds", "mine": "may be wrong"})


def conformist(request: Request) -> AsyncIterator[bytes]:
    """Each model says its own at first, and what the third said from then on."""
    asked = request.body["messages"][-1]["content"]
    text = FIRST[request.body["model"]]
    if "response_format" in request.body:
        text = CRITIQUE
    elif ANSWERS_HEAD in asked:
        text = "I was wrong. The answer is 7."
    return stream_of(text)


async def test_a_right_majority_that_gives_in_is_kept_and_the_flip_is_told_and_taught(
    nats: RunningNats,
) -> None:
    async with upstream_cluster(nats.url, conformist, FIRST, AgentsSettings(drain_timeout_s=5)) as running:
        run = make_run(running.streams, "debate", QUESTION)
        text, ended, _ = await perform(running.streams, run)
        entry = await run_feedback_bucket(running.bus).get(run.id)
        assert entry is not None
        known = RunFeedback.model_validate_json(entry.value or b"")
        await FeedbackCounter(running.bus).submit(Feedback(run=run.id, score=1))
        store = running.team.services.tuner.store
        await eventually(lambda: "user" in store.record(known.kind).models.get("cedar", {}))
        models = store.record(known.kind).models
    assert "12" in text
    report = ended.report["debate"]
    assert (report["first_round_stands"], report["flipped"]) == (True, False)
    assert sorted(flip["who"] for flip in report["flips"]) == ["debater 1", "debater 2", "the lead"]
    assert any("the first round's answer" in note for note in ended.finish.notes)
    groups = {voter["model"]: voter["group"] for voter in report["voices"]}
    assert groups == {"alder": 0, "birch": 0, "cedar": 1}
    assert (known.flip, len(known.answers)) == ("refused", 3)
    right = {name: models[name]["user"].right for name in FIRST}
    assert right == {"alder": pytest.approx(1), "birch": pytest.approx(1), "cedar": pytest.approx(0)}
