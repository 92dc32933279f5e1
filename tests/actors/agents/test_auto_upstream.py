"""`auto` over four models of an upstream, one of which is right: it is found, asked alone, and said."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

from click.testing import CliRunner

from actors.agents.settings import AgentsSettings
from actors.cli.main import root
from actors.learning.feedback import Feedback, FeedbackCounter
from actors.learning.settings import LearningSettings
from tests.actors.agents.clusters import stream_of, upstream_cluster
from tests.actors.agents.test_runs import make_run, perform
from tests.fixtures.nats import RunningNats
from tests.fixtures.upstream import Request

OFF_BY = {"alder": 1, "birch": 0, "cedar": 2, "zelkova": 3}
"""What each model adds to the sum; the last by name is not the best."""
SETTINGS = AgentsSettings(drain_timeout_s=5, auto=LearningSettings(explore=0, flush_s=0.05))


def adder(request: Request) -> AsyncIterator[bytes]:
    """Says a sum, right or wrong as the model is."""
    numbers = re.findall(r"\d+", request.body["messages"][-1]["content"])
    total = int(numbers[0]) + int(numbers[1]) + OFF_BY[request.body["model"]]
    return stream_of(f"The answer is {total}.")


async def test_the_right_one_of_several_models_is_found_by_users_words_and_then_asked_alone(
    nats: RunningNats,
) -> None:
    async with upstream_cluster(nats.url, adder, OFF_BY, SETTINGS) as running:
        desk = FeedbackCounter(running.bus)
        reports = []
        for number in range(40):
            first, second = 20 + number, 31 + 2 * number
            question = f"Ann has {first} eggs and buys {second} more. How many eggs does she have?"
            run = make_run(running.streams, "auto", question)
            text, ended, progress = await perform(running.streams, run)
            report = ended.report["auto"]
            reports.append(report)
            right = str(first + second) in text
            counted = await desk.submit(Feedback(run=run.id, score=1 if right else -1))
            assert counted.pattern == report["pattern"]
        show = ["tuning", "show", "--nats", nats.url]
        told = await asyncio.to_thread(CliRunner().invoke, root, [*show, "--json"])
        shown = await asyncio.to_thread(CliRunner().invoke, root, show)
    assert reports[0]["pattern"] == "ensemble"
    assert re.search("not clear yet|models together", reports[0]["reason"])  # by the luck of the draw
    assert {each["model"] for each in reports[-5:]} == {"birch"}
    assert {each["pattern"] for each in reports[-5:]} == {"single"}
    kind = reports[-1]["kind"]
    assert re.fullmatch(
        rf"birch is right in \d+% of \d+ judged answers to {kind} questions", reports[-1]["reason"]
    )
    assert progress[0].text.startswith("auto chose single, birch, ")
    known = json.loads(told.stdout)[kind]
    first = known["trust"][0]
    assert (first["model"], first["family"]) == ("birch", "birch")
    assert first["low"] < first["mean"] < first["high"]
    assert first["prior"] < first["mean"]
    assert first["evidence"]["user"]["right"] > 10
    assert {way["model"] for way in known["ways"] if way["runs"] > 3} == {"", "birch"}
    assert known["arms"].keys() <= {"strict/ensemble", "precise/ensemble"}
    lines = [line.split() for line in shown.stdout.splitlines()]
    models = [line[1] for line in lines if line[:1] == [kind] and line[1] in OFF_BY]
    assert models[0] == "birch"
    assert sorted(models) == sorted(OFF_BY)
