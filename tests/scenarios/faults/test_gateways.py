"""A gateway that dies: its callers' connections break, and the jobs it accepted go on without it."""

from __future__ import annotations

import asyncio

from tests.fixtures.eventually import eventually
from tests.scenarios.faults.callers import Callers, calling
from tests.scenarios.faults.fleet import Fleet
from tests.scenarios.faults.job_batch import JobBatch


async def test_a_gateway_is_killed_and_a_new_one_serves_the_results_of_its_jobs(fleet: Fleet) -> None:
    gateways = fleet.gateways
    await asyncio.gather(
        fleet.gateway("stays"),
        fleet.start("dispatcher", "dispatcher"),
        fleet.start("agents", "agents"),
        fleet.node("a"),
        fleet.node("b"),
    )
    await fleet.gateway("dies")
    await fleet.ready()
    jobs = JobBatch(lambda: gateways[-1:], count=120)
    safe = Callers(lambda: gateways[:1], count=300)
    lost = Callers(lambda: gateways[1:], count=100)
    async with calling(safe), calling(lost) as loading, asyncio.TaskGroup() as group:
        group.create_task(jobs.submit())
        await loading.until(20)
        await eventually(lambda: len(jobs.ids) >= 20, within_s=30)
        fleet.kill("dies")
        await fleet.gateway("new")
    safe.must_balance()
    # A caller of the dead gateway is answered at most once: whole, or cut off, and then not answered again.
    # Of the 80 not answered before, more than those at once may have reached it while it died.
    lost.must_balance(broken=80)
    assert lost.broken
    await jobs.check_recorded_once(fleet.bus)
    await fleet.settled()


async def test_engines_stop_when_the_gateway_of_their_callers_is_killed(fleet: Fleet) -> None:
    await asyncio.gather(
        fleet.gateway("dies"), fleet.start("dispatcher", "dispatcher"), fleet.node("slow", "--speed", "2")
    )
    await fleet.ready()
    callers = Callers(lambda: fleet.gateways, count=16)
    async with calling(callers):
        await eventually(lambda: callers.begun == 16, within_s=30)
        fleet.kill("dies")
    callers.must_balance(broken=16)
    assert len(callers.broken) == 16
    # The answers had 10 s to go.
    await eventually(lambda: fleet.registry.nodes["slow"].running == 0, within_s=5)
    await fleet.settled()
