"""A gateway that dies: its callers' connections break, and the jobs it accepted go on without it."""

from __future__ import annotations

import asyncio

from tests.fixtures.eventually import eventually
from tests.scenarios.faults.http_clients import HttpClients, under_load
from tests.scenarios.faults.job_batch import JobBatch
from tests.scenarios.faults.process_cluster import ProcessCluster


async def test_a_gateway_is_killed_and_a_new_one_serves_the_results_of_its_jobs(
    processes: ProcessCluster,
) -> None:
    gateways = processes.gateways
    await asyncio.gather(
        processes.gateway("stays"),
        processes.start("dispatcher", "dispatcher"),
        processes.start("agents", "agents"),
        processes.node("a"),
        processes.node("b"),
    )
    await processes.gateway("dies")
    await processes.ready()
    jobs = JobBatch(lambda: gateways[-1:], count=120)
    safe = HttpClients(lambda: gateways[:1], count=300)
    lost = HttpClients(lambda: gateways[1:], count=100)
    async with under_load(safe), under_load(lost) as load, asyncio.TaskGroup() as group:
        group.create_task(jobs.submit())
        await eventually(lambda: len(jobs.ids) >= 20)
        await load.until(20)
        processes.kill("dies")
        await processes.gateway("new")
    safe.must_balance()
    # A caller of the dead gateway is answered at most once: whole, or cut off, and then not answered again.
    # Of the 80 not answered before, more than those at once may have reached it while it died.
    lost.must_balance(broken=80)
    assert lost.broken
    await jobs.check_recorded_once(processes.bus)
    await processes.settled()


async def test_engines_stop_when_the_gateway_of_their_callers_is_killed(processes: ProcessCluster) -> None:
    await asyncio.gather(
        processes.gateway("dies"),
        processes.start("dispatcher", "dispatcher"),
        processes.node("slow", "--speed", "0.4"),
    )
    await processes.ready()
    clients = HttpClients(lambda: processes.gateways, count=16)
    async with under_load(clients):
        await eventually(lambda: clients.begun == 16)
        processes.kill("dies")
    clients.must_balance(broken=16)
    assert len(clients.broken) == 16
    # The answers had a minute to go.
    await eventually(lambda: processes.registry.nodes["slow"].running == 0)
    await processes.settled()
