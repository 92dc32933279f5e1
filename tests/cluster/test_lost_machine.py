"""One of three machines dies under load, the one that leads JetStream and the queue."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.registry import Registry
from actors.runtime.bus import Bus
from actors.runtime.provision import call
from tests.cluster.asking import Publisher, ask_all, connect
from tests.fixtures.eventually import eventually
from tests.fixtures.machines import Machine, Machines, machines

LEADER = re.compile(r"(Self is new JetStream cluster metadata leader|new metadata leader: (\w+))")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Machines]:
    with machines(tmp_path, 3) as made:
        made.start_together()
        made.node("echo-1")
        made.node("echo-2")
        yield made


def leader(three: Machines) -> Machine:
    """The machine whose nats-server leads JetStream, as the first one's log has it."""
    log = (three.all[0].data / "nats" / "server.log").read_text()
    last = LEADER.findall(log)[-1]
    return three.named(last[1] or "m0")


async def lead_queue(bus: Bus, name: str) -> None:
    """Have that server lead the queue of generations too."""
    async with asyncio.timeout(30):
        while True:
            cluster = (await call(bus, "STREAM.INFO.GENERATIONS"))["cluster"]
            replicas = [each["name"] for each in cluster.get("replicas") or [] if each["current"]]
            if cluster.get("leader") == name and len(replicas) == 2:
                return
            if name in replicas:
                await call(bus, "STREAM.LEADER.STEPDOWN.GENERATIONS", {"placement": {"preferred": name}})
            await asyncio.sleep(0.1)


async def test_the_leading_machine_dies_and_all_that_was_accepted_is_answered_and_kept(
    three: Machines,
) -> None:
    victim = leader(three)
    others = [each for each in three.all if each is not victim]
    bus = await connect(",".join(each.url for each in others))
    await lead_queue(bus, victim.name)
    registry = Registry(bus)
    await registry.start()
    await eventually(lambda: set(registry.nodes) == {"echo-1", "echo-2"})
    publisher = Publisher(bus)
    alive = list(three.all)

    def answered(count: int) -> None:
        if count == 100 and victim in alive:
            alive.remove(victim)
            victim.kill()

    publishing = asyncio.ensure_future(publisher.run())
    answers = await ask_all(lambda: [each.http for each in alive], 400, answered=answered)
    assert victim not in alive
    before = len(publisher.stored)
    await eventually(lambda: len(publisher.stored) > before + 50, within_s=30)
    publisher.stop.set()
    await publishing
    answers.must_be_whole(400)
    assert await publisher.lost() == []
    assert set(registry.nodes) == {"echo-1", "echo-2"}
    # Joins and leaves are seen from every machine that is left.
    three.node("echo-3")
    await eventually(lambda: "echo-3" in registry.nodes, within_s=1)
    await registry.stop()
    await bus.close()
