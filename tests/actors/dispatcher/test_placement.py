from __future__ import annotations

import asyncio

import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.cli.placement import explanations
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.system import ActorSystem
from orchestration.errors import NoNode
from orchestration.messages import Generation
from orchestration.placement import Needs
from tests.actors.dispatcher.conftest import DIRECT, QUEUED
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster


@pytest.fixture(params=[QUEUED, DIRECT])
def way(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


async def labelled(cluster: LocalCluster, name: str, **labels: str) -> None:
    """One more node, with labels."""
    settings = NodeSettings(id=name, labels=labels, drain_timeout_s=1)
    backend = EchoBackend(EchoSettings(models=(cluster.model,), slots=4))
    cluster.nodes[name] = await cluster.stack.enter_async_context(
        run_node(cluster.node_bus, backend, settings, ActorSystem())
    )


def wanting(cluster: LocalCluster, **labels: str) -> Generation:
    return cluster.generation().model_copy(update={"labels": labels})


async def test_labels_choose_the_nodes(cluster: LocalCluster) -> None:
    await labelled(cluster, "eu-1", region="eu")
    await labelled(cluster, "us-1", region="us")
    dispatcher = await cluster.dispatcher()
    answers = await asyncio.gather(*(cluster.ask(wanting(cluster, region="us")) for _ in range(10)))
    assert {ended.finish.node for _, ended in answers} == {"us-1"}
    await cluster.settled(dispatcher)


async def test_labels_that_no_live_node_has_are_refused_at_once(cluster: LocalCluster) -> None:
    await labelled(cluster, "eu-2", region="eu")
    dispatcher = await cluster.dispatcher()
    with pytest.raises(NoNode, match="with region=asia"):
        await cluster.ask(wanting(cluster, region="asia"))
    await cluster.settled(dispatcher)


async def test_a_node_of_tenants_serves_them_alone(cluster: LocalCluster) -> None:
    await labelled(cluster, "acmes", tenants="acme")
    await cluster.dispatcher()
    _, ended = await cluster.ask(wanting(cluster, tenant="acme"))
    assert ended.finish.node == "acmes"
    with pytest.raises(NoNode):
        await cluster.ask(cluster.generation())


async def test_the_node_that_proved_faster_is_preferred(cluster: LocalCluster) -> None:
    await cluster.node("slow", speed=20, slots=2)
    await cluster.node("fast", speed=400, slots=2)
    dispatcher = await cluster.dispatcher()
    for _ in range(3):  # both are tried, for they look alike
        await asyncio.gather(*(cluster.ask(cluster.generation(tokens=6)) for _ in range(4)))
    await eventually(
        lambda: all(cluster.model in node.rates for node in dispatcher.registry.serving(cluster.model))
    )
    answers = [await cluster.ask(cluster.generation(tokens=6)) for _ in range(10)]
    assert [ended.finish.node for _, ended in answers] == ["fast"] * 10
    await cluster.settled(dispatcher)


async def test_every_dispatcher_explains_itself(cluster: LocalCluster) -> None:
    await labelled(cluster, "a-1", region="eu")
    await labelled(cluster, "b-1", region="us")
    await cluster.dispatcher()
    needs = Needs(model=cluster.model, labels=frozenset({("region", "eu")}))
    (found,) = await explanations(cluster.bus, needs, [])
    assert found.dispatcher
    assert [(each.node, each.left_out) for each in found.candidates] == [
        ("a-1", ""),
        ("b-1", "label region=eu is required, it has us"),
    ]


async def test_without_a_dispatcher_the_registry_explains(cluster: LocalCluster) -> None:
    node = await cluster.node("alone")
    (found,) = await explanations(cluster.bus, Needs(model=cluster.model), [node.describe()])
    assert (found.dispatcher, [each.node for each in found.candidates]) == ("", ["alone"])


async def test_dispatchers_count_each_other(cluster: LocalCluster) -> None:
    await cluster.node()
    dispatchers = [await cluster.dispatcher() for _ in range(3)]
    await eventually(lambda: [each.snapshot().peers for each in dispatchers] == [2, 2, 2])
