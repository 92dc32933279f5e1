"""A Triton node among others: its server dies in the middle of an answer, and the caller notices nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from actors.triton.backend.backend import TritonBackend
from actors.triton.backend.settings import TritonSettings
from tests.actors.triton.backend.repository import chat_model
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.triton import RunningTriton

MODEL = "counting"
WORDS = "".join(f"w{at} " for at in range(150))


@pytest.fixture
def servers(own_triton: RunningTriton, triton_server: RunningTriton) -> dict[str, RunningTriton]:
    return {"fragile": own_triton, "steady": triton_server}


@pytest.fixture
def cluster(servers: dict[str, RunningTriton]) -> Iterator[Cluster]:
    """A node before each server."""
    backends = []
    for node, server in servers.items():
        models = {MODEL: chat_model(server)}
        settings = TritonSettings(url=server.url, metrics_url=server.metrics_url, models=models)
        backends.append((node, TritonBackend(settings)))
    with running_cluster(backends) as running:
        yield running


def test_a_stream_moves_on_when_its_triton_server_is_killed(
    cluster: Cluster, servers: dict[str, RunningTriton]
) -> None:
    """Not a word is lost and none comes twice: the model goes on counting where the other one was."""
    with OpenAI(base_url=cluster.base_url, api_key="none", max_retries=0) as client:
        for _ in range(20):  # until one runs at the server that is to die
            stream = client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "count 150 every 0.01"}],
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [next(stream) for _ in range(5)]
            struck = bool(cluster.running_on("fragile"))
            if struck:
                servers["fragile"].kill()
            chunks += stream
            text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
            assert text == WORDS
            if struck:
                break
    assert struck
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 150
