"""More models than fit: dispatchers run them by turns, on nodes that load what they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY

from actors.dispatcher import Dispatcher
from tests.actors.dispatcher.conftest import DIRECT, QUEUED
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import SETTINGS, LocalCluster
from tests.fixtures.small_memory import loaded, models_of, of, small_node


@pytest.fixture(params=[QUEUED, DIRECT])
def way(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


async def dispatcher_of(cluster: LocalCluster, models: Sequence[str], *, hold_s: float = 0.3) -> Dispatcher:
    """One more, which pulls for all of the models."""
    dispatcher = await cluster.dispatcher(SETTINGS.model_copy(update={"group_hold_s": hold_s}), sees=0)
    await eventually(lambda: all(dispatcher.registry.serving(model) for model in models))
    return dispatcher


@asynccontextmanager
async def without_end(
    cluster: LocalCluster, model: str, callers: int, tokens: int
) -> AsyncIterator[list[str]]:
    """Meanwhile so many callers ask for `model` again and again; the texts they got."""
    stop = asyncio.Event()
    answers: list[str] = []

    async def call() -> None:
        while not stop.is_set():
            answers.append((await cluster.ask(of(cluster, model, tokens=tokens)))[0])

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
        try:
            yield answers
        finally:
            stop.set()


async def test_an_interleaved_load_is_answered_with_few_swaps(
    cluster: LocalCluster,
) -> None:
    models = models_of(cluster, 3)
    node = await small_node(cluster, models, load_s=0.05, speed=500)
    dispatcher = await dispatcher_of(cluster, models, hold_s=5.0)
    words = [f"number {n}" for n in range(60)]
    answers = await asyncio.gather(
        *(cluster.ask(of(cluster, models[n % 3], each)) for n, each in enumerate(words))
    )
    assert [text for text, _ in answers] == words
    assert [ended.finish.model for _, ended in answers] == [models[n % 3] for n in range(60)]
    await cluster.settled(dispatcher)
    use = node.describe().memory
    assert use.swaps == use.loads == use.unloads <= 9
    assert REGISTRY.get_sample_value("orchestra_node_swaps_total", {"node": node.id}) == use.swaps
    loads = [
        REGISTRY.get_sample_value("orchestra_node_loads_total", {"node": node.id, "model": model}) or 0
        for model in models
    ]
    assert sum(loads) == use.loads


async def test_models_alternate_also_when_each_decision_counts_as_slow(cluster: LocalCluster) -> None:
    models = models_of(cluster, 3)
    await small_node(cluster, models, load_s=0.02, speed=500)
    dispatcher = await dispatcher_of(cluster, models, hold_s=0.1)
    dispatcher.placer.model_scheduler.max_decision_s = 0.0
    words = [f"number {n}" for n in range(30)]
    answers = await asyncio.gather(
        *(cluster.ask(of(cluster, models[n % 3], each)) for n, each in enumerate(words))
    )
    assert [text for text, _ in answers] == words
    assert dispatcher.placer.model_scheduler.not_before > 0
    await cluster.settled(dispatcher)


async def test_a_model_with_endless_requests_alternates_with_another_one(
    cluster: LocalCluster,
) -> None:
    a, b = models_of(cluster, 2)
    node = await small_node(cluster, (a, b), load_s=0.02, speed=200)
    dispatcher = await dispatcher_of(cluster, (a, b))
    async with without_end(cluster, a, 8, tokens=5) as answers:
        await eventually(lambda: len(answers) > 8)
        text, ended = await cluster.ask(of(cluster, b, "let me in"))
        assert (text, ended.finish.model, ended.finish.node) == ("let me in", b, node.id)
        before = len(answers)
        await eventually(lambda: len(answers) > before + 8)
        assert loaded(node) == [a]
    await cluster.settled(dispatcher)


async def test_two_dispatchers_that_each_see_half_of_the_waiting_work_let_no_model_starve(
    cluster: LocalCluster,
) -> None:
    a, b = models_of(cluster, 2)
    await small_node(cluster, (a, b), load_s=0.02, speed=200)
    dispatchers = [await dispatcher_of(cluster, (a, b)) for _ in range(2)]
    async with without_end(cluster, a, 12, tokens=5) as answers:
        await eventually(lambda: len(answers) > 12)
        for n in range(4):
            assert (await cluster.ask(of(cluster, b, f"again {n}")))[0] == f"again {n}"
    await cluster.settled(*dispatchers)


async def test_loaded_models_are_used_where_they_are_and_nothing_is_swapped(
    cluster: LocalCluster,
) -> None:
    a, b = models_of(cluster, 2)
    first = await small_node(cluster, (a, b), name=f"{cluster.model[-8:]}-1", load_s=0.5, speed=400)
    second = await small_node(cluster, (b, a), name=f"{cluster.model[-8:]}-2", load_s=0.5, speed=400)
    dispatcher = await dispatcher_of(cluster, (a, b))
    await eventually(lambda: len(dispatcher.registry.serving(a)) == 2)
    for _ in range(3):
        answers = await asyncio.gather(
            *(cluster.ask(of(cluster, model, tokens=4)) for model in (a, b) for _ in range(3))
        )
        assert [ended.finish.node for _, ended in answers] == [first.id] * 3 + [second.id] * 3
    assert (loaded(first), loaded(second)) == ([a], [b])
    await cluster.settled(dispatcher)


async def test_a_model_that_was_unloaded_by_hand_is_loaded_again_on_request(
    cluster: LocalCluster,
) -> None:
    a, b = models_of(cluster, 2)
    node = await small_node(cluster, (a, b), fit=2)
    dispatcher = await dispatcher_of(cluster, (a, b))
    assert await node.models.unload(a)
    await eventually(lambda: not dispatcher.registry.nodes[node.id].models[0].loaded)
    assert (await cluster.ask(of(cluster, a, "are you back")))[0] == "are you back"
    assert loaded(node) == [a, b]
    await cluster.settled(dispatcher)
