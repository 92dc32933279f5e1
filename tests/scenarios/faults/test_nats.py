"""The one nats-server is killed under load and started again on its data."""

from __future__ import annotations

import asyncio

import pytest

from tests.fixtures.eventually import eventually
from tests.scenarios.faults.http_clients import HttpClients, under_load
from tests.scenarios.faults.job_batch import JobBatch
from tests.scenarios.faults.process_cluster import ProcessCluster


@pytest.mark.parametrize("model", ["echo", "orchestra/single", "orchestra/ensemble"])
async def test_the_nats_server_is_killed_twice_and_started_again(
    processes: ProcessCluster, model: str
) -> None:
    await asyncio.gather(
        processes.gateway("gateway"),
        processes.start("dispatcher", "dispatcher"),
        processes.start("agents", "agents"),
        processes.node("a"),
        processes.node("b"),
    )
    await processes.ready()
    clients, jobs = (
        HttpClients(lambda: processes.gateways, model=model),
        JobBatch(lambda: processes.gateways, count=60),
    )
    async with under_load(clients) as load, asyncio.TaskGroup() as group:
        group.create_task(jobs.submit())
        for answered in (40, 140):
            await load.until(answered)
            processes.nats.kill()
            await eventually(lambda: not processes.bus.connected)
            await asyncio.to_thread(processes.nats.restart)
    clients.must_balance()
    await jobs.check_recorded_once(processes.bus)
    await eventually(lambda: processes.bus.connected)
    await processes.settled()
