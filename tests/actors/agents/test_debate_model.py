"""A debate of the real SmolLM2 over two nodes: forms it can fill in, positions, and nobody who speaks on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from actors.agents.settings import AgentsSettings
from actors.backends.echo import EchoBackend, EchoSettings
from actors.engine.onnx_backend import OnnxBackend
from actors.runtime.envelope import Envelope
from orchestration.errors import InvalidRequest
from orchestration.messages import ChatMessage, Run
from orchestration.patterns import StepLimits
from orchestration.patterns.debating.critique import parse_critique
from tests.actors.agents.clusters import cluster
from tests.actors.agents.test_ensemble_model import MODEL, SLOW, perform, two_nodes
from tests.fixtures.eventually import eventually
from tests.fixtures.models import minilm_folder
from tests.fixtures.nats import RunningNats

QUESTIONS = ("Why do leaves turn red in autumn?", "Which is larger, the moon or the sun, and why?")
BRIEF = AgentsSettings(limits=StepLimits(specialist_tokens=32, final_tokens=32), drain_timeout_s=5)


async def test_debaters_on_both_nodes_fill_in_their_forms_and_the_report_has_every_position(
    nats: RunningNats, model_folder: Path
) -> None:
    backends = [OnnxBackend([model_folder]) for _ in range(2)]
    async with cluster(
        nats.url, backends[0], BRIEF, others=backends[1:], embedder=minilm_folder()
    ) as running:
        settings = {"debaters": 2, "rounds": 2, "roles": ["reasoning"], "temperature": 1.5}
        ends = await asyncio.gather(
            *(perform(running, question, "debate", settings=settings) for question in QUESTIONS)
        )
        nodes = {node.id for node in running.nodes}
    asked = usable = 0
    seen: set[str] = set()
    for text, ended in ends:
        report = ended.report["debate"]
        assert text.strip()
        assert report["ended"] in ("agreement", "no change", "round limit")
        assert not any(step.error for step in ended.steps)
        assert report["dropped"] == []
        for told in report["rounds"]:
            assert [position["debater"] for position in told["positions"]] == [1, 2]
            assert all(position["model"] == MODEL and position["answer"] for position in told["positions"])
        seen |= {position["node"] for told in report["rounds"] for position in told["positions"]}
        forms = [step.text for step in ended.steps if step.name.endswith("critique")]
        assert len(forms) == report["critiques"]["asked"] == 2 * (len(report["rounds"]) - 1)
        for position in report["rounds"][-1]["positions"]:
            if "critique" in position:
                assert parse_critique(next(form for form in forms if position["critique"]["mine"] in form))
        asked += report["critiques"]["asked"]
        usable += report["critiques"]["usable"]
    assert seen == nodes
    assert asked
    assert usable > 0.5 * asked


async def test_cancelling_in_the_middle_of_a_round_stops_every_debater(
    nats: RunningNats, model_folder: Path
) -> None:
    """One of them would go on for a quarter of an hour."""
    slow = EchoBackend(EchoSettings(models=(SLOW,), speed=0.25))
    async with two_nodes(nats, model_folder, slow) as running:
        run = Run(
            id=running.streams.new_id(),
            pattern="debate",
            messages=(ChatMessage(role="user", content="Count from one to two hundred in words. " * 5),),
            settings={"models": [SLOW, MODEL], "debaters": 2},
        )
        async with aclosing(running.streams.stream(run, Envelope.within(60))) as events:
            reading = asyncio.ensure_future(anext(events))
            await eventually(lambda: running.nodes[-1].describe().running == 1, within_s=60)
            reading.cancel()
            await asyncio.wait([reading])
        await eventually(lambda: not any(node.describe().running for node in running.nodes))
        await eventually(lambda: not running.team.run_consumer.open)  # type: ignore[union-attr]


async def test_a_model_that_is_not_there_is_a_debater_less_and_more_than_six_are_refused(
    nats: RunningNats, model_folder: Path
) -> None:
    async with two_nodes(nats, model_folder) as running:
        settings = {"models": [MODEL, "ghost", MODEL], "rounds": 1}
        text, ended = await perform(running, "What is the capital of France?", "debate", settings=settings)
        assert text.strip()
        assert [each["debater"] for each in ended.report["debate"]["dropped"]] == [2]
        assert any(
            "without debater 2 (research, ghost): no model 'ghost'" in note for note in ended.finish.notes
        )
        with pytest.raises(
            InvalidRequest, match=r"orchestra\.settings\.debaters: .* less than or equal to 6"
        ):
            await perform(running, "hi", "debate", settings={"debaters": 7})
