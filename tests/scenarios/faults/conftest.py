from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats
from tests.scenarios.faults.process_cluster import ProcessCluster, running_process_cluster


@pytest.fixture
async def cluster(own_nats: RunningNats) -> AsyncIterator[LocalCluster]:
    """Roles in the test's own process."""
    async with local_cluster(own_nats.url) as cluster:
        yield cluster


@pytest.fixture
async def processes(own_nats: RunningNats, tmp_path: Path) -> AsyncIterator[ProcessCluster]:
    """Roles that are processes."""
    async with running_process_cluster(own_nats, tmp_path) as processes:
        yield processes
