"""Nodes that die or freeze under load: every accepted request is answered once and whole."""

from __future__ import annotations

import asyncio

from tests.fixtures.eventually import eventually
from tests.scenarios.faults.http_clients import HttpClients, under_load
from tests.scenarios.faults.job_batch import JobBatch
from tests.scenarios.faults.process_cluster import ProcessCluster


async def with_nodes(processes: ProcessCluster, *nodes: str) -> None:
    """One gateway, one dispatcher, and these nodes."""
    await asyncio.gather(
        processes.gateway("gateway"),
        processes.start("dispatcher", "dispatcher"),
        *(processes.node(name) for name in nodes),
    )
    await processes.ready()


async def test_nodes_are_killed_before_they_begin_while_they_read_and_while_they_write(
    processes: ProcessCluster,
) -> None:
    await with_nodes(processes, "stays")
    await processes.start("agents", "agents")
    # All that one of them has waits for its first token when it dies; all that the other has is half written.
    await asyncio.gather(
        processes.node("reads", first_token_s=60), processes.node("writes", "--speed", "4", first_token_s=0)
    )
    clients, jobs = HttpClients(lambda: processes.gateways), JobBatch(lambda: processes.gateways, count=60)
    async with under_load(clients) as load, asyncio.TaskGroup() as group:
        group.create_task(jobs.submit())
        await processes.until_busy("reads")
        await processes.until_busy("writes")
        await load.until(40)
        # More is sent to them before their death is known: that never begins.
        processes.kill("reads")
        await load.until(100)
        processes.kill("writes")
    clients.must_balance()
    assert clients.by()["stays"] >= 200
    await jobs.check_recorded_once(processes.bus)
    await processes.settled()


async def test_a_node_freezes_and_thaws(processes: ProcessCluster) -> None:
    await with_nodes(processes, "stays", "freezes")
    clients = HttpClients(lambda: processes.gateways)
    async with under_load(clients) as load:
        await load.until(40)
        await processes.until_busy("freezes")
        processes.freeze("freezes")
        before = clients.by()["freezes"]
        await load.until(180)
        assert clients.by()["freezes"] <= before + 16  # what had arrived and was not read yet
        processes.thaw("freezes")
    clients.must_balance()
    await eventually(lambda: "freezes" in processes.registry.nodes)
    again = HttpClients(lambda: processes.gateways, count=100)
    await again.run()
    again.must_balance()
    assert again.by()["freezes"]
    await processes.settled()


async def test_all_nodes_are_killed_and_one_comes_back(processes: ProcessCluster) -> None:
    await with_nodes(processes, "a", "b")
    clients = HttpClients(lambda: processes.gateways)
    async with under_load(clients) as load:
        await load.until(60)
        processes.kill("a")
        processes.kill("b")
        answered = clients.answered
        await processes.node("c")
    clients.must_balance()
    assert clients.by()["c"] >= 300 - answered - 32
    await processes.settled()
