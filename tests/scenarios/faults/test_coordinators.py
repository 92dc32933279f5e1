"""Coordinators that die or freeze in the middle of runs, of callers who wait and of jobs."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.faults.callers import Callers, calling
from tests.scenarios.faults.fleet import Fleet
from tests.scenarios.faults.job_batch import JobBatch


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_runs_go_on_when_a_coordinator_is(fleet: Fleet, how: str) -> None:
    await asyncio.gather(
        fleet.gateway("gateway"),
        fleet.start("dispatcher", "dispatcher"),
        fleet.start("victim", "agents"),
        fleet.start("stays", "agents"),
        fleet.node("a"),
        fleet.node("b"),
    )
    await fleet.ready()
    callers = Callers(lambda: fleet.gateways, model="orchestra/single")
    jobs = JobBatch(lambda: fleet.gateways, count=60)
    async with calling(callers) as loading, asyncio.TaskGroup() as group:
        group.create_task(jobs.submit())
        await loading.until(60)
        fleet.kill("victim") if how == "killed" else fleet.freeze("victim")
    callers.must_balance()
    await jobs.until_done()
    if how == "frozen":
        again = Callers(lambda: fleet.gateways, model="orchestra/single")
        async with calling(again) as loading:
            await loading.until(60)
            fleet.thaw("victim")
        again.must_balance()
    await jobs.check_recorded_once(fleet.bus)
    await fleet.settled()
