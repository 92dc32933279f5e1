"""A node on a link of its own, whose packets are dropped under load without a word to either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fixtures.eventually import eventually
from tests.fixtures.nats import start_nats
from tests.fixtures.partition import Elsewhere, elsewhere
from tests.scenarios.faults.http_clients import HttpClients, under_load
from tests.scenarios.faults.process_cluster import ProcessCluster, running_process_cluster


@pytest.fixture
def link() -> Iterator[Elsewhere]:
    with elsewhere() as link:
        yield link


@pytest.fixture
async def processes(link: Elsewhere, tmp_path: Path) -> AsyncIterator[ProcessCluster]:
    """Its nats-server is reached over the link."""
    nats = start_nats(tmp_path / "nats", host=link.host)
    try:
        async with running_process_cluster(nats, tmp_path) as processes:
            yield processes
    finally:
        nats.stop()


async def test_what_a_node_had_that_is_cut_off_goes_on_elsewhere_and_it_serves_again_when_healed(
    processes: ProcessCluster, link: Elsewhere
) -> None:
    await asyncio.gather(
        processes.gateway("gateway"),
        processes.start("dispatcher", "dispatcher"),
        processes.node("near"),
        processes.node("far", before=link.prefix),
    )
    await processes.ready()
    clients = HttpClients(lambda: processes.gateways)
    async with under_load(clients) as load:
        await load.until(40)
        await processes.until_busy("far")
        link.cut()
    clients.must_balance()  # while it is cut off
    await eventually(lambda: set(processes.registry.nodes) == {"near"})
    link.heal()
    await eventually(lambda: set(processes.registry.nodes) == {"near", "far"}, within_s=60)
    again = HttpClients(lambda: processes.gateways, count=100)
    await again.run()
    again.must_balance()
    assert again.by()["far"]
    await processes.settled()
