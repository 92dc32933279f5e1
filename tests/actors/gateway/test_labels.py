from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from tests.fixtures.cluster import Cluster, running_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    nodes = [(name, EchoBackend(EchoSettings(models=("echo",)))) for name in ("one", "two", "three")]
    with running_cluster(nodes, agents=True) as running:
        yield running


def ask(cluster: Cluster, model: str, orchestra: Any) -> Any:
    """The answer's own field, or the error."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "orchestra": orchestra}
    request = urllib.request.Request(f"{cluster.base_url}/chat/completions", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["orchestra"]
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)["error"]


@pytest.mark.parametrize("node", ["one", "two", "three"])
def test_a_caller_says_what_the_node_must_have(cluster: Cluster, node: str) -> None:
    said = {"labels": {"node": node, "backend": "echo"}}
    assert {ask(cluster, "echo", said)["node"] for _ in range(4)} == {node}


def test_labels_hold_for_every_step_of_a_pattern(cluster: Cluster) -> None:
    for node in ("one", "three"):
        assert ask(cluster, "orchestra/single", {"model": "echo", "labels": {"node": node}})["node"] == node


def test_labels_that_no_node_has_are_refused_by_name(cluster: Cluster) -> None:
    error = ask(cluster, "echo", {"labels": {"region": "mars"}})
    assert error["code"] == "no_node"
    assert "region=mars" in error["message"]


@pytest.mark.parametrize("labels", [["node"], {"node": 1}, {"": "x"}, {str(n): "x" for n in range(17)}])
def test_labels_that_are_none_are_invalid(cluster: Cluster, labels: Any) -> None:
    assert ask(cluster, "echo", {"labels": labels})["code"] == "invalid_request"
