from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats


@pytest.fixture
async def cluster(nats_server: RunningNats) -> AsyncIterator[LocalCluster]:
    async with local_cluster(nats_server.url) as cluster:
        yield cluster
