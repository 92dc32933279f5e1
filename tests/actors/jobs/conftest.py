from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.jobs.settings import JobsSettings, WebhookSettings
from tests.actors.jobs.client import JobsClient
from tests.fixtures.cluster import Cluster, running_cluster

SECRET = "a secret of the tests"
QUICK = JobsSettings(
    max_attempts=3,
    first_pause_s=0.02,
    outage_pause_s=0.05,
    max_listed=50,
    webhook=WebhookSettings(
        secret=SECRET, private_addresses=True, max_attempts=3, first_pause_s=0.05, timeout_s=2
    ),
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """All roles, with nodes without a model: `echo` at full speed, `slow` at 20 tokens a second, and
    `broken`, which fails always."""
    backends = [
        ("fast", EchoBackend(EchoSettings(models=("echo",), slots=16, repeat=False))),
        ("paced", EchoBackend(EchoSettings(models=("slow",), speed=20, repeat=False))),
        ("broken", EchoBackend(EchoSettings(models=("broken",), fail_first=10**9))),
    ]
    with running_cluster(backends, agents=True, jobs=QUICK) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[JobsClient]:
    with JobsClient(cluster.url) as client:
        yield client
