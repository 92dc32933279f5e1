from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.bus.bus import Bus
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply
from tests.actors.agents.clusters import connection
from tests.fixtures.nats import RunningNats, module_nats
from tests.fixtures.spans import spans

__all__ = ["module_nats", "spans"]


@pytest.fixture
async def bus(nats: RunningNats) -> AsyncIterator[Bus]:
    async with connection(nats.url, "tuning") as bus:
        await apply(bus, shipped_declaration())
        yield bus
