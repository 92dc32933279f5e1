"""Dispatchers that die or freeze under load."""

from __future__ import annotations

import asyncio

from tests.scenarios.faults.callers import Callers, calling
from tests.scenarios.faults.fleet import Fleet
from tests.scenarios.faults.job_batch import JobBatch


async def test_a_dispatcher_is_killed_and_another_takes_its_place(fleet: Fleet) -> None:
    await asyncio.gather(
        fleet.gateway("gateway"),
        fleet.start("agents", "agents"),
        fleet.start("first", "dispatcher"),
        fleet.node("a"),
        fleet.node("b"),
    )
    await fleet.ready()
    callers, jobs = Callers(lambda: fleet.gateways), JobBatch(lambda: fleet.gateways, count=60)
    async with calling(callers) as loading, asyncio.TaskGroup() as group:
        group.create_task(jobs.submit())
        await loading.until(60)
        fleet.kill("first")
        await fleet.start("second", "dispatcher")
    callers.must_balance()
    await jobs.check_recorded_once(fleet.bus)
    await fleet.settled()


async def test_a_dispatcher_freezes_and_does_no_harm_when_it_thaws(fleet: Fleet) -> None:
    await asyncio.gather(
        fleet.gateway("gateway"),
        fleet.start("freezes", "dispatcher"),
        fleet.start("stays", "dispatcher"),
        fleet.node("a"),
        fleet.node("b"),
    )
    await fleet.ready()
    callers = Callers(lambda: fleet.gateways)
    async with calling(callers) as loading:
        await loading.until(60)
        fleet.freeze("freezes")
    callers.must_balance()  # what it held as well, while it is still frozen
    again = Callers(lambda: fleet.gateways)
    async with calling(again) as loading:
        await loading.until(60)
        fleet.thaw("freezes")
    again.must_balance()
    await fleet.settled()
