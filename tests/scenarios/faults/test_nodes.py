"""Nodes that die or freeze under load: every accepted request is answered once and whole."""

from __future__ import annotations

import asyncio

from tests.fixtures.eventually import eventually
from tests.scenarios.faults.callers import Callers, calling
from tests.scenarios.faults.fleet import Fleet
from tests.scenarios.faults.job_batch import JobBatch


async def with_nodes(fleet: Fleet, *nodes: str) -> None:
    """One gateway, one dispatcher, and these nodes."""
    await asyncio.gather(
        fleet.gateway("gateway"),
        fleet.start("dispatcher", "dispatcher"),
        *(fleet.node(name) for name in nodes),
    )
    await fleet.ready()


async def test_nodes_are_killed_before_they_begin_while_they_read_and_while_they_write(fleet: Fleet) -> None:
    await with_nodes(fleet, "stays")
    await fleet.start("agents", "agents")
    # All that one of them has waits for its first token when it dies; all that the other has is half written.
    await asyncio.gather(
        fleet.node("reads", first_token_s=60), fleet.node("writes", "--speed", "4", first_token_s=0)
    )
    callers, jobs = Callers(lambda: fleet.gateways), JobBatch(lambda: fleet.gateways, count=60)
    async with calling(callers) as loading, asyncio.TaskGroup() as group:
        group.create_task(jobs.submit())
        await fleet.until_busy("reads")
        await fleet.until_busy("writes")
        await loading.until(40)
        # More is sent to them before their death is known: that never begins.
        fleet.kill("reads")
        await loading.until(100)
        fleet.kill("writes")
    callers.must_balance()
    assert callers.by()["stays"] >= 200
    await jobs.check_recorded_once(fleet.bus)
    await fleet.settled()


async def test_a_node_freezes_and_thaws(fleet: Fleet) -> None:
    await with_nodes(fleet, "stays", "freezes")
    callers = Callers(lambda: fleet.gateways)
    async with calling(callers) as loading:
        await loading.until(40)
        await fleet.until_busy("freezes")
        fleet.freeze("freezes")
        before = callers.by()["freezes"]
        await loading.until(180)
        assert callers.by()["freezes"] <= before + 16  # what had arrived and was not read yet
        fleet.thaw("freezes")
    callers.must_balance()
    await eventually(lambda: "freezes" in fleet.registry.nodes, within_s=20)
    again = Callers(lambda: fleet.gateways, count=100)
    await again.run()
    again.must_balance()
    assert again.by()["freezes"]
    await fleet.settled()


async def test_all_nodes_are_killed_and_one_comes_back(fleet: Fleet) -> None:
    await with_nodes(fleet, "a", "b")
    callers = Callers(lambda: fleet.gateways)
    async with calling(callers) as loading:
        await loading.until(60)
        fleet.kill("a")
        fleet.kill("b")
        answered = callers.answered
        await fleet.node("c")
    callers.must_balance()
    assert callers.by()["c"] >= 300 - answered - 32
    await fleet.settled()
