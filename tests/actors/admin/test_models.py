"""Models: loaded, unloaded and pinned on nodes, and pulled to them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.engine.onnx_backend import OnnxBackend
from actors.node.settings import NodeSettings
from orchestration.log_events import LogEvent
from tests.fixtures.admin import Operator
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.models import minilm_folder, models_folder, smollm2_folder
from tests.fixtures.small_disk import small_disk


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes with memory for one of their two models."""
    echo = EchoSettings(models=("one", "two"), model_mb=10)
    backends = [("a", EchoBackend(echo)), ("b", EchoBackend(echo))]
    with running_cluster(backends, node=NodeSettings(memory_mb=10)) as running:
        yield running


async def replicas(operator: Operator, model: str) -> dict[str, tuple[bool, bool]]:
    """Whether the model is loaded and pinned, by node."""
    page = await operator.call("models.list")
    row = next(each for each in page["data"] if each["name"] == model)
    return {each["node"]: (each["loaded"], each["pinned"]) for each in row["replicas"]}


async def becomes(operator: Operator, model: str, wanted: dict[str, tuple[bool, bool]]) -> None:
    async def so() -> bool:
        return await replicas(operator, model) == wanted

    await eventually(so)


async def ask(cluster: Cluster, model: str) -> int:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "a"}]}
    async with aiohttp.ClientSession(cluster.url) as http:
        async with http.post("/v1/chat/completions", json=body) as answer:
            await answer.read()
            return answer.status


async def test_a_model_is_loaded_and_unloaded_on_all_its_nodes_or_one(
    operator: Operator, records: list[LogEvent]
) -> None:
    await operator.call("models.load", model="two")
    await becomes(operator, "two", {"a": (True, False), "b": (True, False)})
    records.clear()
    loaded = await operator.call("models.load", model="one", node="a", reason="a test")
    assert [(each["node"], each["changed"]) for each in loaded["results"]] == [("a", True)]
    await becomes(operator, "one", {"a": (True, False), "b": (False, False)})
    again = await operator.call("models.load", model="one", node="a")
    assert [each["changed"] for each in again["results"]] == [False]
    await operator.call("models.unload", model="one", node="a")
    await becomes(operator, "one", {"a": (False, False), "b": (False, False)})
    assert [(each.data["action"], each.model) for each in records] == [
        ("models.load", "one"),
        ("models.unload", "one"),
    ]
    assert records[0].data["before"] == {"loaded": {"a": False}}


async def test_a_pinned_model_is_neither_evicted_nor_unloaded(cluster: Cluster, operator: Operator) -> None:
    await operator.call("models.pin", model="one", node="a")
    try:
        await becomes(operator, "one", {"a": (True, True), "b": (False, False)})
        status, message = await operator.refused("models.load", model="two", node="a")
        assert status == 429
        assert "the loaded models are all in use or pinned" in message
        status, message = await operator.refused("models.unload", model="one", node="a")
        assert (status, message) == (400, "model 'one' is pinned on node a: unpin it first")
        assert {await ask(cluster, "two") for _ in range(4)} == {200}  # on the other node
    finally:
        await operator.call("models.pin", model="one", node="a", pinned=False)
    await operator.call("models.load", model="two", node="a")
    await becomes(operator, "one", {"a": (False, False), "b": (False, False)})


async def test_a_model_or_node_that_is_not_there_is_named(operator: Operator) -> None:
    for name in ("models.load", "models.unload", "models.pin"):
        assert await operator.refused(name, model="none") == (404, "no model 'none'; known models: one, two")
        status, message = await operator.refused(name, model="one", node="c")
        assert (status, message) == (404, "no live node 'c'; there are: a, b")


async def test_only_models_of_the_catalogue_are_pulled_and_only_to_nodes_with_folders(
    operator: Operator,
) -> None:
    for source in ("none", "hf:someone/something/file.gguf", "file:/etc/passwd"):
        status, message = await operator.refused("models.pull", model=source, node="a")
        assert status == 404
        assert "known models: all-minilm-l6-v2, smollm2-135m" in message
    status, message = await operator.refused("models.pull", model="smollm2-135m", node="a")
    assert (status, message) == (400, "node a has the echo backend: nothing can be pulled to it")


def test_a_pulled_model_is_offered_by_its_node(records: list[LogEvent]) -> None:
    smollm2_folder()  # is there already, so that nothing is downloaded
    backends = [("a", OnnxBackend([minilm_folder()]))]
    with running_cluster(backends, models_folder=models_folder()) as cluster:
        asyncio.run(_pull(Operator(cluster), cluster))
    assert [each.data["action"] for each in records] == ["models.pull"]


async def _pull(operator: Operator, cluster: Cluster) -> None:
    begun = await operator.call("models.pull", model="smollm2-135m", node="a")
    assert (begun["state"], begun["node"]) == ("running", "a")

    async def done() -> bool:
        pulls = (await operator.call("models.pulls", node="a"))["data"]
        assert [each["id"] for each in pulls] == [begun["id"]]
        assert pulls[0]["error"] is None
        return bool(pulls[0]["state"] == "done")

    await eventually(done, within_s=60)
    await eventually(lambda: "smollm2-135m" in cluster.running.gateway.registry.cards)
    assert await ask(cluster, "smollm2-135m") == 200


def test_a_pull_to_a_node_without_room_is_refused_with_the_figures(tmp_path: Path) -> None:
    backends = [("a", OnnxBackend([minilm_folder()]))]
    node = NodeSettings(memory_mb=96)
    with running_cluster(backends, node=node, models_folder=tmp_path) as cluster:
        operator = Operator(cluster)
        status, message = asyncio.run(operator.refused("models.pull", model="smollm2-135m", node="a"))
    assert status == 400
    assert "model 'smollm2-135m' takes 98.36 MB, more than the whole memory limit of 96 MB" in message
    with small_disk(tmp_path / "small", 50) as folder:
        with running_cluster([("a", OnnxBackend([minilm_folder()]))], models_folder=folder) as cluster:
            operator = Operator(cluster)
            status, message = asyncio.run(operator.refused("models.pull", model="smollm2-135m", node="a"))
    assert status == 507
    assert "needs 339 MB of disk" in message
    assert "MB are free" in message
