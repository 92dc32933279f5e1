from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.nats import RunningNats
from tests.fixtures.stage import Stage
from tests.fixtures.stage import stage as set_up
from tests.scenarios.faults.fleet import Fleet, running_fleet


@pytest.fixture
async def stage(own_nats: RunningNats) -> AsyncIterator[Stage]:
    """Roles in the test's own process."""
    async with set_up(own_nats.url) as stage:
        yield stage


@pytest.fixture
async def fleet(own_nats: RunningNats, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Roles that are processes."""
    async with running_fleet(own_nats, tmp_path) as fleet:
        yield fleet
