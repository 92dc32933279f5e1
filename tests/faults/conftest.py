from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet
from tests.fixtures.nats import RunningNats
from tests.fixtures.stage import stage as set_up


@pytest.fixture
async def fleet(own_nats: RunningNats, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with set_up(own_nats.url) as stage:
        fleet = Fleet(stage, own_nats, tmp_path)
        try:
            yield fleet
        finally:
            fleet.end()
