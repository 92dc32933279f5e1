"""Coordinators that die or freeze in the middle of runs, of callers who wait and of jobs."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.faults.http_clients import HttpClients, under_load
from tests.scenarios.faults.job_batch import JobBatch
from tests.scenarios.faults.process_cluster import ProcessCluster


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_runs_go_on_when_a_coordinator_is(processes: ProcessCluster, how: str) -> None:
    await asyncio.gather(
        processes.gateway("gateway"),
        processes.start("dispatcher", "dispatcher"),
        processes.start("victim", "agents"),
        processes.start("stays", "agents"),
        processes.node("a"),
        processes.node("b"),
    )
    await processes.ready()
    clients = HttpClients(lambda: processes.gateways, model="orchestra/single")
    jobs = JobBatch(lambda: processes.gateways, count=60)
    async with under_load(clients) as load, asyncio.TaskGroup() as group:
        group.create_task(jobs.submit())
        await load.until(60)
        processes.kill("victim") if how == "killed" else processes.freeze("victim")
    clients.must_balance()
    await jobs.until_done()
    if how == "frozen":
        again = HttpClients(lambda: processes.gateways, model="orchestra/single")
        async with under_load(again) as load:
            await load.until(60)
            processes.thaw("victim")
        again.must_balance()
    await jobs.check_recorded_once(processes.bus)
    await processes.settled()
