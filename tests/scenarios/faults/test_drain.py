"""`orchestra node drain`, on nodes and by a command that are processes."""

from __future__ import annotations

import asyncio

import pytest

from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster
from tests.fixtures.process import orchestra
from tests.scenarios.faults.process_cluster import ProcessCluster


async def drain(processes: ProcessCluster, name: str) -> tuple[int, str]:
    """The command's exit code, and what it said."""
    with orchestra(
        "node", "drain", name, "--nats", processes.nats.url, "--data", str(processes.folder)
    ) as command:
        code = await asyncio.to_thread(command.wait)
        return code, command.said


@pytest.mark.parametrize(("timeout_s", "repeats"), [("30", 40), ("0.2", 1000)])
async def test_a_node_that_drains_finishes_or_hands_on_what_it_has_and_stops(
    processes: ProcessCluster, cluster: LocalCluster, timeout_s: str, repeats: int
) -> None:
    leaver = await processes.start(
        "leaver",
        *("node", "--backend", "echo", "--id", "leaver", "--serve", cluster.model, "--speed", "50"),
        ORCHESTRA_NODE__DRAIN_TIMEOUT_S=timeout_s,
    )
    dispatcher = await cluster.dispatcher(sees=1)
    words = "this goes on for a while"
    asked = [
        asyncio.ensure_future(cluster.ask(cluster.generation(words, tokens=6 * repeats), within_s=120))
        for _ in range(20)
    ]
    await eventually(lambda: dispatcher.registry.nodes["leaver"].running == 20)
    await processes.node("stays", "--serve", cluster.model, "--speed", "0")
    code, said = await drain(processes, "leaver")
    assert code == 0, said
    assert "has left" in said
    assert await asyncio.to_thread(leaver.wait) == 0
    answers = await asyncio.gather(*asked)
    assert [text for text, _ in answers] == [" ".join([words] * repeats)] * 20
    assert {ended.finish.node for _, ended in answers} == {"leaver" if timeout_s == "30" else "stays"}
    await cluster.settled(dispatcher)


async def test_a_node_that_is_not_there_cannot_be_drained(processes: ProcessCluster) -> None:
    code, said = await drain(processes, "nobody")
    assert code == 5
    assert "no node 'nobody' is alive" in said
