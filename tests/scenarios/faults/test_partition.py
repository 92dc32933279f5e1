"""A node on a link of its own, whose packets are dropped under load without a word to either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fixtures.eventually import eventually
from tests.fixtures.nats import start_nats
from tests.fixtures.partition import Elsewhere, elsewhere
from tests.scenarios.faults.callers import Callers, calling
from tests.scenarios.faults.fleet import Fleet, running_fleet


@pytest.fixture
def link() -> Iterator[Elsewhere]:
    with elsewhere() as link:
        yield link


@pytest.fixture
async def fleet(link: Elsewhere, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Its nats-server is reached over the link."""
    nats = start_nats(tmp_path / "nats", host=link.host)
    try:
        async with running_fleet(nats, tmp_path) as fleet:
            yield fleet
    finally:
        nats.stop()


async def test_what_a_node_had_that_is_cut_off_goes_on_elsewhere_and_it_serves_again_when_healed(
    fleet: Fleet, link: Elsewhere
) -> None:
    await asyncio.gather(
        fleet.gateway("gateway"),
        fleet.start("dispatcher", "dispatcher"),
        fleet.node("near"),
        fleet.node("far", before=link.prefix),
    )
    await fleet.ready()
    callers = Callers(lambda: fleet.gateways)
    async with calling(callers) as loading:
        await loading.until(40)
        await fleet.until_busy("far")
        link.cut()
    callers.must_balance()  # while it is cut off
    await eventually(lambda: set(fleet.registry.nodes) == {"near"}, within_s=20)
    link.heal()
    await eventually(lambda: set(fleet.registry.nodes) == {"near", "far"}, within_s=60)
    again = Callers(lambda: fleet.gateways, count=100)
    await again.run()
    again.must_balance()
    assert again.by()["far"]
    await fleet.settled()
