"""Vectors made in the agents' own process, and what happens where they cannot be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.agents.agent_client import AbsentAgents, AgentClient
from actors.agents.run_event_publisher import RunEventPublisher
from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply
from actors.bus.subjects import StreamAddress
from actors.embedding.embedder import BATCH, Embedder
from actors.engine.onnx_backend import OnnxBackend
from actors.runtime.envelope import Envelope
from actors.streams.writer import StreamWriter
from orchestration.errors import NoNode
from tests.actors.agents.clusters import Cluster, cluster, connection
from tests.actors.engine.onnx.asking import embed
from tests.fixtures.eventually import eventually
from tests.fixtures.models import minilm_folder, smollm2_folder
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import orchestra

CAT, KITTEN, RATES = "The cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose in March."


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    made = Embedder(minilm_folder())
    yield made
    made.close()


@asynccontextmanager
async def colleagues(running: Cluster, embedder: Embedder | None) -> AsyncIterator[AgentClient]:
    """Those of a run that nobody reads."""
    address = StreamAddress(running.streams.new_id())
    yield AgentClient(
        services=replace(running.team.services, embedder=embedder),
        writer=StreamWriter(running.bus, address, lambda: None),
        run_events=RunEventPublisher(running.bus, address.id),
        envelope=Envelope.within(60),
        absent=AbsentAgents(),
    )


async def test_the_agents_vectors_are_those_of_a_node(embedder: Embedder) -> None:
    texts = (CAT, KITTEN, RATES)
    backend = OnnxBackend([minilm_folder()])
    await backend.start()
    try:
        there, _ = await embed(backend, *texts)
    finally:
        await backend.close()
    here = await embedder.vectors(texts)
    assert np.allclose(here, there, atol=1e-5)
    assert here[0] @ here[1] > 0.5 > here[0] @ here[2] + 0.2


async def test_texts_come_back_in_order_however_many_repeated_and_long_they_are(embedder: Embedder) -> None:
    texts = [f"{'very ' * (number % 5)}numbered {number % 20}" for number in range(3 * BATCH)]
    rows = await embedder.vectors([*texts, "word " * 3000, ""])
    assert rows.shape == (len(texts) + 2, 384)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.array_equal(rows[20], (await embedder.vectors([texts[20]]))[0])
    assert (await embedder.vectors([])).shape[0] == 0


async def test_no_more_vectors_are_cached_than_the_limit() -> None:
    embedder = Embedder(minilm_folder(), max_cached=8)
    try:
        await embedder.vectors([f"text {number}" for number in range(40)])
        assert embedder.cached == 8
    finally:
        embedder.close()


async def test_the_loop_goes_on_while_a_long_list_is_embedded(embedder: Embedder) -> None:
    work = asyncio.create_task(embedder.vectors([f"{'a long text ' * 60}{n}" for n in range(BATCH)]))
    turns = 0
    while not work.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1000, "the loop stood still"


async def test_a_pattern_embeds_without_any_node_that_could(nats: RunningNats, embedder: Embedder) -> None:
    async with cluster(nats.url, EchoBackend(EchoSettings())) as running:
        async with colleagues(running, embedder) as asked:
            rows = await asked.embed([CAT, KITTEN])
            assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        async with colleagues(running, None) as asked:
            with pytest.raises(NoNode, match="no live node serves one"):
                await asked.embed([CAT])


async def test_a_model_that_cannot_embed_is_told_once_and_a_nodes_serves_instead(
    nats: RunningNats, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Embedder(smollm2_folder())
    async with cluster(nats.url, OnnxBackend([minilm_folder()])) as running:
        async with colleagues(running, broken) as asked:
            with caplog.at_level(logging.WARNING):
                rows = [await asked.embed([CAT]) for _ in range(2)]
    broken.close()
    assert rows[0] == rows[1]
    assert len([record for record in caplog.records if "cannot be loaded" in record.message]) == 1


async def test_agents_start_without_a_model_that_cannot_be_had_and_warn(
    nats: RunningNats, tmp_path: Path
) -> None:
    async with connection(nats.url, "declare") as bus:
        await apply(bus, shipped_declaration())
    words = ("agents", "--nats", nats.url, "--data", str(tmp_path))
    with orchestra(*words, ORCHESTRA_AGENTS__EMBEDDER="no-such-model") as process:
        await asyncio.to_thread(process.wait_for, "agents of cluster local are ready")
    assert "WARNING" in process.said
    assert "agents.embedder 'no-such-model' is not installed" in process.said
    assert "all-minilm-l6-v2" in process.said


async def test_a_model_is_fetched_when_something_is_first_embedded(tmp_path: Path) -> None:
    pulls: list[Path] = []

    def pull() -> None:
        pulls.append(tmp_path)
        (tmp_path / minilm_folder().name).symlink_to(minilm_folder())

    embedder = Embedder(tmp_path / minilm_folder().name, pull)
    try:
        assert not pulls
        with pytest.raises(NoNode, match="is being fetched"):
            await embedder.vectors([CAT])

        async def embedded() -> bool:
            try:
                return len(await embedder.vectors([CAT])) == 1
            except NoNode:
                return False

        await eventually(embedded)
        assert len(pulls) == 1
    finally:
        embedder.close()


async def test_an_idle_model_leaves_the_memory_and_comes_back_with_the_next_text() -> None:
    embedder = Embedder(minilm_folder(), idle_s=0.05)
    try:
        first = await embedder.vectors([CAT])
        await eventually(lambda: not embedder.loaded)
        assert np.array_equal(await embedder.vectors([CAT]), first), "remembered"
        assert not embedder.loaded
        assert len(await embedder.vectors([KITTEN])) == 1
    finally:
        embedder.close()


async def test_a_model_that_cannot_be_fetched_is_told_with_the_reason(tmp_path: Path) -> None:
    def pull() -> None:
        raise NoNode("the index does not answer")

    embedder = Embedder(tmp_path / "all-minilm-l6-v2", pull)
    try:
        with pytest.raises(NoNode, match="is being fetched"):
            await embedder.vectors([CAT])

        async def told() -> bool:
            with pytest.raises(NoNode) as refusal:
                await embedder.vectors([CAT])
            return "the index does not answer" in refusal.value.message

        await eventually(told)
    finally:
        embedder.close()


async def test_agents_find_the_model_in_their_data_folder_and_say_nothing(
    nats: RunningNats, tmp_path: Path
) -> None:
    (tmp_path / "models").symlink_to(minilm_folder().parent)
    words = ("agents", "--nats", nats.url, "--data", str(tmp_path))
    with orchestra(*words, ORCHESTRA_AGENTS__EMBEDDER="all-minilm-l6-v2") as process:
        await asyncio.to_thread(process.wait_for, "agents of cluster local are ready")
    assert "WARNING" not in process.said
