from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from actors.backends.echo import EchoBackend, EchoSettings
from tests.fixtures.cluster import Cluster, running_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Nodes without models: `echo` at full speed and with embeddings, `slow` at 40 tokens a second."""
    fast = EchoSettings(
        models=("echo", "vendor/echo.v2"), embedding_models=("echo-embed",), context_tokens=2000
    )
    slow = EchoSettings(models=("slow",), speed=40)
    with running_cluster([("fast", EchoBackend(fast)), ("paced", EchoBackend(slow))]) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[OpenAI]:
    """OpenAI's own client, without its retries: a test wants to see the first answer."""
    with OpenAI(base_url=cluster.base_url, api_key="none", max_retries=0) as client:
        yield client
