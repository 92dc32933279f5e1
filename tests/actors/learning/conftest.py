from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from actors.bus.bus import Bus
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply
from tests.actors.agents.clusters import connection
from tests.fixtures.nats import RunningNats, start_nats
from tests.fixtures.spans import spans

__all__ = ["spans"]


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNats]:
    """A server for one module: no other module uses its records."""
    server = start_nats(tmp_path_factory.mktemp("nats"))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
async def bus(nats: RunningNats) -> AsyncIterator[Bus]:
    async with connection(nats.url, "tuning") as bus:
        await apply(bus, shipped_declaration())
        yield bus
