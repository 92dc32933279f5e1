"""The one nats-server is killed under load and started again on its data."""

from __future__ import annotations

import asyncio

from tests.fixtures.eventually import eventually
from tests.scenarios.faults.callers import Callers, calling
from tests.scenarios.faults.fleet import Fleet
from tests.scenarios.faults.job_batch import JobBatch


async def test_the_nats_server_is_killed_twice_and_started_again(fleet: Fleet) -> None:
    await asyncio.gather(
        fleet.gateway("gateway"),
        fleet.start("dispatcher", "dispatcher"),
        fleet.start("agents", "agents"),
        fleet.node("a"),
        fleet.node("b"),
    )
    await fleet.ready()
    callers, jobs = Callers(lambda: fleet.gateways), JobBatch(lambda: fleet.gateways, count=60)
    async with calling(callers) as loading, asyncio.TaskGroup() as group:
        group.create_task(jobs.submit())
        for answered in (40, 140):
            await loading.until(answered)
            fleet.nats.kill()
            await eventually(lambda: not fleet.bus.connected)
            await asyncio.to_thread(fleet.nats.restart)
    callers.must_balance()
    await jobs.check_recorded_once(fleet.bus)
    await eventually(lambda: fleet.bus.connected)
    await fleet.settled()
