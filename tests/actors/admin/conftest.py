from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.admin.audit import EVENT
from actors.backends.echo import EchoBackend, EchoSettings
from actors.telemetry.event_log import event_log
from orchestration.log_events import LogEvent
from tests.fixtures.admin import Operator
from tests.fixtures.cluster import Cluster, running_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes serve `echo`; `slow` says 20 words a second, and `one` has one slot and begins after 2 s."""
    backends = [
        ("n1", EchoBackend(EchoSettings(models=("echo",)))),
        ("n2", EchoBackend(EchoSettings(models=("echo",)))),
        ("paced", EchoBackend(EchoSettings(models=("slow",), speed=20))),
        ("single", EchoBackend(EchoSettings(models=("one",), slots=1, first_token_s=2))),
    ]
    with running_cluster(backends, agents=True) as running:
        yield running


@pytest.fixture(params=("http", "nats"))
def operator(cluster: Cluster, request: pytest.FixtureRequest) -> Operator:
    return Operator(cluster, request.param)


@pytest.fixture
def records() -> Iterator[list[LogEvent]]:
    """The audit records that this process makes meanwhile."""
    found: list[LogEvent] = []

    def sink(event: LogEvent) -> None:
        if event.name == EVENT:
            found.append(event)

    event_log.add_sink(sink)
    yield found
    event_log.remove_sink(sink)
