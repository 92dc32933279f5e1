"""Dispatchers that die or freeze under load."""

from __future__ import annotations

import asyncio

from tests.scenarios.faults.http_clients import HttpClients, under_load
from tests.scenarios.faults.job_batch import JobBatch
from tests.scenarios.faults.process_cluster import ProcessCluster


async def test_a_dispatcher_is_killed_and_another_takes_its_place(processes: ProcessCluster) -> None:
    await asyncio.gather(
        processes.gateway("gateway"),
        processes.start("agents", "agents"),
        processes.start("first", "dispatcher"),
        processes.node("a"),
        processes.node("b"),
    )
    await processes.ready()
    clients, jobs = HttpClients(lambda: processes.gateways), JobBatch(lambda: processes.gateways, count=60)
    async with under_load(clients) as load, asyncio.TaskGroup() as group:
        group.create_task(jobs.submit())
        await load.until(60)
        processes.kill("first")
        await processes.start("second", "dispatcher")
    clients.must_balance()
    await jobs.check_recorded_once(processes.bus)
    await processes.settled()


async def test_a_dispatcher_freezes_and_does_no_harm_when_it_thaws(processes: ProcessCluster) -> None:
    await asyncio.gather(
        processes.gateway("gateway"),
        processes.start("freezes", "dispatcher"),
        processes.start("stays", "dispatcher"),
        processes.node("a"),
        processes.node("b"),
    )
    await processes.ready()
    clients = HttpClients(lambda: processes.gateways)
    async with under_load(clients) as load:
        await load.until(60)
        processes.freeze("freezes")
    clients.must_balance()  # what it held as well, while it is still frozen
    again = HttpClients(lambda: processes.gateways)
    async with under_load(again) as load:
        await load.until(60)
        processes.thaw("freezes")
    again.must_balance()
    await processes.settled()
