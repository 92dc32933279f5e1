"""Votes of the real SmolLM2 over two nodes: voices on both, and none that goes on when enough have spoken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.agents.settings import AgentsSettings
from actors.backends.base import Backend
from actors.backends.echo import EchoBackend, EchoSettings
from actors.embedding.embedder import Embedder
from actors.engine.onnx_backend import OnnxBackend
from actors.engine.settings import OnnxSettings
from actors.learning.settings import LearningSettings
from actors.runtime.envelope import Envelope
from orchestration.errors import InvalidGuide, UnknownModel
from orchestration.messages import ChatMessage, Run, RunEnd, Sampling, TextDelta
from orchestration.patterns import StepLimits
from orchestration.patterns.consensus import MIN_SIMILARITY, AnswerKind, clusters, key_of, similarity_matrix
from tests.actors.agents.clusters import Cluster, answered, cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.models import minilm_folder
from tests.fixtures.nats import RunningNats

MODEL = "smollm2-135m"
SLOW = "slow"
SETTINGS = AgentsSettings(
    limits=StepLimits(final_tokens=48),
    drain_timeout_s=5,
    auto=LearningSettings(learn=False, quality={MODEL: 0.6, SLOW: 0.6}),
)


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    made = Embedder(minilm_folder())
    yield made
    made.close()


@asynccontextmanager
async def two_nodes(nats: RunningNats, folder: Path, *others: Backend) -> AsyncIterator[Cluster]:
    """Two of the real model with two slots each, so that four voices need both."""
    first, second = (OnnxBackend([folder], OnnxSettings(slots=2)) for _ in range(2))
    async with cluster(
        nats.url, first, SETTINGS, others=[second, *others], embedder=minilm_folder()
    ) as running:
        yield running


async def perform(
    running: Cluster, question: str, pattern: str = "ensemble", **said: Any
) -> tuple[str, RunEnd]:
    settings = said.pop("settings", {})
    run = Run(
        id=running.streams.new_id(),
        pattern=pattern,
        messages=(ChatMessage(role="user", content=question),),
        settings=settings,
        **said,
    )
    return await answered(running.streams, run, 220)


async def test_voices_speak_on_both_nodes_and_agree_on_what_they_mean(
    nats: RunningNats, model_folder: Path
) -> None:
    async with two_nodes(nats, model_folder) as running:
        question = "What is the capital of France? Answer in one sentence."
        settings = {"samples": 4, "early": False, "temperature": 0.3, "stream_at": 1}
        text, ended = await perform(running, question, settings=settings)
    assert "Paris" in text
    report = ended.report["ensemble"]
    assert report["kind"] in ("text", "exact")
    assert {voter["node"] for voter in report["voices"]} == {node.id for node in running.nodes}
    assert all(voter["model"] == MODEL and voter["answer"] for voter in report["voices"])
    agreeing = [voter for voter in report["voices"] if voter["agrees"]]
    assert report["agreement"] == len(agreeing) / 4
    assert report["answer"] in (step.text.strip() for step in ended.steps)
    assert len(ended.steps) == 4
    assert ended.finish.usage.completion_tokens == sum(voter["tokens"] for voter in report["voices"])


@pytest.mark.parametrize(
    ("same", "others"),
    [
        (
            (
                "The capital of France is Paris.",
                "Paris is the capital of France.",
                "Paris",
                "France's capital city is Paris, which lies on the Seine.",
            ),
            ("The capital of France is Lyon.", "It is Marseille, a city in the south."),
        ),
        (
            ("Bees make honey.", "Bees produce honey from nectar.", "Honey."),
            ("Bees do not make honey.", "Bees make paper nests."),
        ),
        (
            (
                "Leaves turn red in autumn because chlorophyll breaks down and anthocyanins become visible.",
                "In autumn the green chlorophyll disappears and red pigments called anthocyanins show.",
            ),
            (
                "Leaves turn red because the tree burns them with the heat of the sun.",
                "The cold freezes the leaves, which makes them red.",
            ),
        ),
        (("World War II ended in 1945.", "The war ended in 1945."), ("World War II ended in 1939.",)),
    ],
)
async def test_the_real_embeddings_tell_answers_that_say_the_same_from_those_that_do_not(
    same: tuple[str, ...], others: tuple[str, ...], embedder: Embedder
) -> None:
    alike = similarity_matrix((*same, *others), await embedder.vectors((*same, *others)))
    first, *rest = clusters(alike, MIN_SIMILARITY)
    assert first == list(range(len(same)))
    assert all(len(group) == 1 for group in rest)


async def test_a_sum_is_thought_over_several_times_and_voted_on(
    nats: RunningNats, model_folder: Path
) -> None:
    question = "What is 2 + 3?"
    async with two_nodes(nats, model_folder) as running:
        text, ended = await perform(
            running,
            question,
            "self-consistency",
            settings={"samples": 5, "temperature": 0.3},
            sampling=Sampling(max_tokens=160, seed=1),
        )
    report = ended.report["self-consistency"]
    assert report["kind"] == "number"
    assert report["answer"] in text
    whole = [step for step in ended.steps if step.finish_reason != "cancelled"]
    assert len(whole) + report["calls_cut"] == 5
    answers = {step.name: step.text for step in ended.steps}
    agreed = {
        key_of(AnswerKind.NUMBER, answers[f"voice {voter['voice']}"], question)
        for voter in report["voices"]
        if voter["agrees"]
    }
    assert agreed == {key_of(AnswerKind.NUMBER, report["answer"], question)} != {None}


async def test_when_two_of_three_agree_the_third_stops_on_its_node_long_before_its_end(
    nats: RunningNats, model_folder: Path
) -> None:
    """The third is a model that would go on for three minutes."""
    slow = EchoBackend(EchoSettings(models=(SLOW,), speed=0.25))
    async with two_nodes(nats, model_folder, slow) as running:
        node = running.nodes[-1]
        settings = {"models": [MODEL, MODEL, SLOW], "temperature": 0, "cascade": False}
        text, ended = await perform(running, "What is the capital of France?", settings=settings)
        await eventually(lambda: node.describe().running == 0)
        await eventually(lambda: not any(each.describe().running for each in running.nodes))
    assert "Paris" in text
    report = ended.report["ensemble"]
    assert report["stopped_early"]
    assert report["calls_cut"] == 1
    stopped = report["voices"][2]
    assert stopped.pop("tokens") < 10
    assert stopped == {
        "voice": 3,
        "model": SLOW,
        "node": "",
        "answer": "",
        "agrees": False,
        "group": None,
        "followed": False,
        "weight": 1.005,
        "stopped": True,
    }
    assert report["tokens_saved"] > 0
    whole = [step.model for step in ended.steps if step.finish_reason != "cancelled"]
    assert whole == [MODEL, MODEL]


async def test_the_answer_begins_while_the_slowest_voice_still_speaks(
    nats: RunningNats, model_folder: Path
) -> None:
    slow = EchoBackend(EchoSettings(models=(SLOW,), speed=0.25))
    async with two_nodes(nats, model_folder, slow) as running:
        run = Run(
            id=running.streams.new_id(),
            pattern="ensemble",
            messages=(ChatMessage(role="user", content="What is the capital of France?"),),
            settings={"models": [MODEL, MODEL, SLOW], "early": False},
        )
        async with aclosing(running.streams.stream(run, Envelope.within(60))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
            assert running.nodes[-1].describe().running == 1
        await eventually(lambda: not any(each.describe().running for each in running.nodes))


async def test_a_model_that_does_not_exist_is_a_voice_less_and_all_of_them_an_error(
    nats: RunningNats, model_folder: Path
) -> None:
    async with two_nodes(nats, model_folder) as running:
        settings: dict[str, Any] = {"models": ["ghost", MODEL, MODEL], "temperature": 0}
        text, ended = await perform(running, "What is the capital of France?", settings=settings)
        assert "Paris" in text
        assert any("without voice 1 (ghost): no model 'ghost'" in note for note in ended.finish.notes)
        with pytest.raises(UnknownModel, match="no model 'ghost'"):
            await perform(running, "hi", settings={"models": ["ghost", "spirit"], "samples": 2})
        with pytest.raises(InvalidGuide):
            await perform(running, "hi", guide={"json_schema": {"type": "nonsense"}})
