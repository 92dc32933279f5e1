from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats

QUEUED, DIRECT, TOGETHER = "queued", "direct", "together"


@pytest.fixture
def way() -> str:
    """How generations of `cluster` reach a node. A module of tests that hold for both overrides it."""
    return QUEUED


@pytest.fixture
async def cluster(nats_server: RunningNats, way: str) -> AsyncIterator[LocalCluster]:
    async with local_cluster(nats_server.url, direct=way != QUEUED, together=way == TOGETHER) as cluster:
        yield cluster
