"""Nodes that die or freeze under load: every accepted request is answered once and whole."""

from __future__ import annotations

import asyncio
import signal

from prometheus_client import REGISTRY

from tests.faults.fleet import Fleet
from tests.fixtures.eventually import eventually


def moved(fleet: Fleet) -> float:
    labels = {"model": fleet.stage.model, "reason": "node_lost"}
    return REGISTRY.get_sample_value("orchestra_dispatcher_moved_total", labels) or 0


async def test_nodes_are_killed_under_load(fleet: Fleet) -> None:
    """Some of what they had waited for its first token, some was half written; more is sent there before
    their death is known."""
    await fleet.nodes("a", "b", "c")
    dispatcher = await fleet.stage.dispatcher(sees=3)
    loading = asyncio.create_task(fleet.load())
    await fleet.until_answered(40, loading)
    fleet.send("a", signal.SIGKILL)
    await fleet.until_answered(120, loading)
    fleet.send("b", signal.SIGKILL)
    await loading
    assert moved(fleet) > 4
    assert fleet.answers.by()["c"] > 100
    await fleet.stage.settled(dispatcher)


async def test_a_node_freezes_under_load_and_thaws(fleet: Fleet) -> None:
    await fleet.nodes("a", "b")
    dispatcher = await fleet.stage.dispatcher(sees=2)
    loading = asyncio.create_task(fleet.load())
    await fleet.until_answered(40, loading)
    fleet.send("a", signal.SIGSTOP)
    await eventually(lambda: "a" in dispatcher._pulse.silent, within_s=20)
    assert "a" in dispatcher.registry.nodes  # long before its lease ends
    before = fleet.answers.by()["a"]
    await fleet.until_answered(160, loading)
    assert fleet.answers.by()["a"] == before
    fleet.send("a", signal.SIGCONT)
    await loading
    assert moved(fleet) > 4
    await eventually(lambda: "a" not in dispatcher._pulse.silent)
    await fleet.stage.settled(dispatcher)


async def test_all_nodes_are_killed_under_load_and_one_comes_back(fleet: Fleet) -> None:
    await fleet.nodes("a", "b")
    dispatcher = await fleet.stage.dispatcher(sees=2)
    loading = asyncio.create_task(fleet.load())
    await fleet.until_answered(60, loading)
    for name in ("a", "b"):
        fleet.send(name, signal.SIGKILL)
    await eventually(lambda: dispatcher._pulse.silent == {"a", "b"}, within_s=20)
    answered = len(fleet.answers.nodes)
    await fleet.nodes("c")
    await loading
    assert fleet.answers.by()["c"] == 300 - answered
    await fleet.stage.settled(dispatcher)
