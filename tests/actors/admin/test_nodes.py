"""Nodes: drain, labels and removal; who may be drained, and what a node forgets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.key_value import Bucket
from actors.cluster.registry import BUCKET
from orchestration.log_events import LogEvent
from orchestration.messages import NodeInfo
from tests.fixtures.admin import Operator
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually


async def test_labels_are_set_and_removed_and_requests_find_them(
    cluster: Cluster, operator: Operator, records: list[LogEvent]
) -> None:
    changed = await operator.call("nodes.label", id="n1", labels={"zone": "eu", "disk": "fast"})
    assert changed["labels"] == {"zone": "eu", "disk": "fast"}
    labels = {"zone": "eu", "disk": "fast"}
    await eventually(lambda: cluster.running.gateway.registry.nodes["n1"].labels == labels)
    await operator.call("nodes.label", id="n1", labels={"zone": "eu"})  # as it is
    removed = await operator.call("nodes.label", id="n1", remove=["zone", "disk", "none"], reason="a test")
    assert removed["labels"] == {}
    assert [(each.data["before"], each.data["after"]) for each in records] == [({}, labels), (labels, {})]
    assert (records[1].node, records[1].data["reason"]) == ("n1", "a test")
    for labels in ({"a b": "c"}, {"zone": "two\nlines"}, {"zone": "x" * 257}):
        status, message = await operator.refused("nodes.label", id="n1", labels=labels)
        assert status == 400
        assert "labels" in message


async def test_an_operation_on_a_node_that_is_not_there_names_those_that_are(operator: Operator) -> None:
    for name in ("nodes.drain", "nodes.label", "nodes.remove", "nodes.inspect"):
        status, message = await operator.refused(name, id="n9")
        assert status == 404
        assert message.endswith("there are: n1, n2, paced, single")


async def test_a_node_that_lives_is_not_removed(operator: Operator) -> None:
    status, message = await operator.refused("nodes.remove", id="n1")
    assert (status, message) == (409, "node 'n1' is alive: drain it instead")


async def test_a_node_that_has_died_is_forgotten_at_once(
    cluster: Cluster, operator: Operator, records: list[LogEvent]
) -> None:
    info = cluster.nodes["n1"].describe().model_copy(update={"id": "dead", "models": ()})
    nodes = Bucket(cluster.bus, BUCKET)
    cluster.call(nodes.put("dead", info.model_dump_json().encode()))
    cluster.wait(lambda: "dead" in cluster.running.gateway.registry.nodes)
    assert (await operator.call("nodes.remove", id="dead"))["state"] == "removed"
    cluster.wait(lambda: "dead" not in cluster.running.gateway.registry.nodes)
    assert [each.data["target"] for each in records] == ["dead"]
    assert NodeInfo.model_validate(await operator.call("nodes.inspect", id="n1")).id == "n1"


async def test_the_last_node_of_a_model_is_drained_by_force_only(operator: Operator) -> None:
    status, message = await operator.refused("nodes.drain", id="paced")
    assert status == 409
    assert message.startswith("node 'paced' is the last one that serves slow: start another one")


@pytest.fixture
def small() -> Iterator[Cluster]:
    backends = [(name, EchoBackend(EchoSettings(models=("echo",)))) for name in ("a", "b")]
    with running_cluster(backends) as running:
        yield running


def test_nodes_are_drained_one_after_another_and_the_last_one_by_force(
    small: Cluster, records: list[LogEvent]
) -> None:
    async def drain() -> None:
        operator = Operator(small)
        registry = small.running.gateway.registry
        drained = await operator.call("nodes.drain", id="a", reason="new disk")
        assert drained == {"id": "a", "state": "draining", "unfinished": 0}
        await eventually(lambda: "a" not in registry.nodes and "a" not in registry.draining)
        assert (await operator.refused("nodes.drain", id="b"))[0] == 409
        await operator.call("nodes.drain", id="b", force=True)
        await eventually(lambda: not registry.nodes)

    asyncio.run(drain())
    assert [each.data["after"]["alone"] for each in records] == [[], ["echo"]]
