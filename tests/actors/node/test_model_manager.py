"""Models that do not all fit: a node loads what is asked for, and evicts what is idle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.backends.openai import OpenAIBackend, OpenAISettings
from actors.bus.bus import Message
from actors.bus.subjects import NodeAddress, StreamAddress
from actors.node.node import Node
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.service import ERROR_CODE
from actors.runtime.system import ActorSystem
from orchestration.errors import InvalidRequest
from orchestration.messages import Generation, GenerationEnd, LoadModel, LoadResult, UnloadModel
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats
from tests.fixtures.small_memory import loaded, models_of, of, small_node


@pytest.fixture
async def cluster(nats_server: RunningNats) -> AsyncIterator[LocalCluster]:
    async with local_cluster(nats_server.url) as cluster:
        cluster.streams.name += "-away"  # the tests listen themselves: it would stop streams it did not open
        yield cluster


async def run(cluster: LocalCluster, node: Node, generation: Generation) -> Message:
    """Speak to a node as a dispatcher does."""
    listening = await cluster.bus.subscribe(StreamAddress(generation.id).subject, lambda _: None)
    body = generation.model_dump_json().encode()
    try:
        return await cluster.bus.request(NodeAddress(node.id).generate, body, timeout=30)
    finally:
        await listening.unsubscribe()


async def tell(cluster: LocalCluster, node: Node, wanted: LoadModel | UnloadModel) -> Message:
    address = NodeAddress(node.id)
    subject = address.load if isinstance(wanted, LoadModel) else address.unload
    return await cluster.bus.request(subject, wanted.model_dump_json().encode(), timeout=30)


async def test_a_generation_has_its_model_loaded_and_the_one_used_longest_ago_leaves(
    cluster: LocalCluster,
) -> None:
    a, b, c = models_of(cluster, 3)
    node = await small_node(cluster, (a, b, c), fit=2)
    assert loaded(node) == [a, b]
    for model in (b, a, c):
        ended = GenerationEnd.model_validate_json((await run(cluster, node, of(cluster, model))).data)
        assert (ended.finish.model, ended.finish.reason) == (model, "stop")
    assert loaded(node) == [a, c]
    use = node.describe().memory
    assert (use.limit_bytes, use.loads, use.unloads, use.swaps) == (20_000_000, 1, 1, 1)


async def test_the_registry_says_what_is_loaded_how_large_it_is_and_how_long_it_takes(
    cluster: LocalCluster,
) -> None:
    a, b = models_of(cluster, 2)
    node = await small_node(cluster, (a, b), load_s=0.02)
    registry = await cluster.registry()
    await eventually(lambda: registry.serving(b))
    await run(cluster, node, of(cluster, b))
    await eventually(lambda: [card.loaded for card in registry.nodes[node.id].models] == [False, True])
    cards = {card.name: card for card in registry.nodes[node.id].models}
    assert cards[a].memory_bytes == cards[b].memory_bytes == 10_000_000
    assert 0.01 <= cards[b].load_s < 10  # timers may fire a millisecond early
    assert cards[a].load_s == 0.02


async def test_what_is_in_use_is_never_evicted_and_who_was_refused_for_it_is_told(
    cluster: LocalCluster,
) -> None:
    a, b = models_of(cluster, 2)
    node = await small_node(cluster, (a, b), speed=100)
    running = asyncio.ensure_future(run(cluster, node, of(cluster, a, tokens=100_000)))
    await eventually(lambda: node.describe().running == 1)
    refused = await run(cluster, node, of(cluster, b))
    assert refused.header(ERROR_CODE) == "429"
    assert json.loads(refused.data)["code"] == "node_busy"
    assert node.describe().memory.claims == (b,)
    assert loaded(node) == [a]
    explicit = await tell(cluster, node, LoadModel(model=b))
    assert json.loads(explicit.data)["code"] == "node_busy"
    running.cancel()
    await asyncio.wait({running})
    await eventually(lambda: node.describe().running == 0)
    assert (
        GenerationEnd.model_validate_json((await run(cluster, node, of(cluster, b))).data).finish.reason
        == "stop"
    )
    assert node.describe().memory.claims == ()


async def test_generations_that_come_while_their_model_is_loaded_share_the_one_load(
    cluster: LocalCluster,
) -> None:
    a, b = models_of(cluster, 2)
    node = await small_node(cluster, (a, b), load_s=0.1)
    answers = await asyncio.gather(*(run(cluster, node, of(cluster, b, f"n {n}")) for n in range(4)))
    assert all(GenerationEnd.model_validate_json(answer.data).finish.reason == "stop" for answer in answers)
    assert node.describe().memory.loads == 1


async def test_a_caller_that_leaves_while_its_model_is_loaded_does_not_undo_it(cluster: LocalCluster) -> None:
    a, b = models_of(cluster, 2)
    node = await small_node(cluster, (a, b), load_s=0.2)
    generation = of(cluster, b)
    asked = asyncio.ensure_future(run(cluster, node, generation))
    await eventually(lambda: node.describe().running == 1)
    await cluster.bus.publish(StreamAddress(generation.id).cancel)
    assert json.loads((await asked).data)["code"] == "shutting_down"
    await eventually(lambda: loaded(node) == [b])
    assert node.describe().running == 0


async def test_a_model_is_loaded_and_unloaded_by_name(cluster: LocalCluster) -> None:
    a, b = models_of(cluster, 2)
    node = await small_node(cluster, (a, b))
    found = LoadResult.model_validate_json((await tell(cluster, node, LoadModel(model=b))).data)
    assert (found.node, found.model, found.loaded, found.changed) == (node.id, b, True, True)
    again = LoadResult.model_validate_json((await tell(cluster, node, LoadModel(model=b))).data)
    assert not again.changed
    gone = LoadResult.model_validate_json((await tell(cluster, node, UnloadModel(model=b))).data)
    assert (gone.loaded, gone.changed, loaded(node)) == (False, True, [])
    nothing = LoadResult.model_validate_json((await tell(cluster, node, UnloadModel(model=b))).data)
    assert not nothing.changed
    unknown = await tell(cluster, node, LoadModel(model="other"))
    assert unknown.header(ERROR_CODE) == "404"
    assert a in json.loads(unknown.data)["message"]


async def test_unloading_waits_for_what_runs_and_takes_nothing_new(cluster: LocalCluster) -> None:
    a, b = models_of(cluster, 2)
    node = await small_node(cluster, (a, b), speed=100)
    running = asyncio.ensure_future(run(cluster, node, of(cluster, a, tokens=60)))
    await eventually(lambda: node.describe().running == 1)
    unloading = asyncio.ensure_future(tell(cluster, node, UnloadModel(model=a)))
    await eventually(lambda: node.models._unloading)
    refused = await run(cluster, node, of(cluster, a))
    assert "is unloading" in json.loads(refused.data)["message"]
    assert not unloading.done()
    assert GenerationEnd.model_validate_json((await running).data).finish.usage.completion_tokens == 60
    assert LoadResult.model_validate_json((await unloading).data).changed
    assert loaded(node) == []
    back = await run(cluster, node, of(cluster, a))
    assert GenerationEnd.model_validate_json(back.data).finish.reason == "stop"


async def test_a_model_larger_than_the_memory_ends_the_start_with_both_sizes(cluster: LocalCluster) -> None:
    backend = EchoBackend(EchoSettings(models=("big",), model_mb=30))
    settings = NodeSettings(id="too-small", memory_mb=20)
    with pytest.raises(InvalidRequest, match=r"'big' takes 30 MB, more than .* 20 MB"):
        async with run_node(cluster.node_bus, backend, settings, ActorSystem()):
            pass


async def test_a_backend_that_has_its_models_elsewhere_refuses_to_load_and_unload() -> None:
    backend = OpenAIBackend(OpenAISettings(base_url="http://127.0.0.1:1/v1", models={"m": "m"}))
    with pytest.raises(InvalidRequest, match="openai backend loads and unloads nothing"):
        await backend.unload("m")
    with pytest.raises(InvalidRequest, match="model 'm' is always loaded"):
        await backend.load("m")
