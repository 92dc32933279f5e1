from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fixtures.nats import RunningNats
from tests.fixtures.stage import Stage
from tests.fixtures.stage import stage as set_up


@pytest.fixture
async def stage(nats_server: RunningNats) -> AsyncIterator[Stage]:
    async with set_up(nats_server.url) as stage:
        yield stage
