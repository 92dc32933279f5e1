"""Three machines without a centre: what all of them see, and the death of the one that leads, under load.

The last test leaves two.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest

from actors.bus.bus import Bus
from actors.bus.provision import call_api
from actors.cluster.registry import Registry
from orchestration.errors import DeadlineExceeded, Unavailable
from tests.fixtures.eventually import eventually
from tests.fixtures.machines import Machine, Machines, machines
from tests.scenarios.cluster.asking import Publisher, connect
from tests.scenarios.faults.http_clients import HttpClients, under_load
from tests.scenarios.faults.job_batch import JobBatch

LEADER = re.compile(r"(Self is new JetStream cluster metadata leader|new metadata leader: (\w+))")
SEEN_S = 5.0
"""Joins and leaves are seen within 1 s; on a machine with better things to do, within this."""
DEAD_S = 15.0
"""A death is seen within 10 s; likewise."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with machines(tmp_path_factory.mktemp("machines"), 3) as made:
        made.start_together()
        for name in ("echo-1", "echo-2"):
            made.node(name, "--speed", "60", "--slots", "16")
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
async def bus(three: Machines) -> AsyncIterator[Bus]:
    bus = await connect(three.urls)
    yield bus
    await bus.close()


def leader(three: Machines) -> Machine:
    """The machine whose nats-server leads JetStream, as the first one's log has it."""
    log = (three.all[0].data / "nats" / "server.log").read_text()
    last = LEADER.findall(log)[-1]
    return three.named(last[1] or "m0")


async def lead_queues(bus: Bus, name: str) -> None:
    """Have that server lead the queues too."""
    async with asyncio.timeout(60):
        for stream in ("GENERATIONS", "RUNS", "KV_results"):
            while not await _leads(bus, stream, name):
                pass


async def _leads(bus: Bus, stream: str, name: str) -> bool:
    """Whether it does; where it does not, it is asked to, and given time to be elected."""
    try:
        cluster = (await call_api(bus, f"STREAM.INFO.{stream}"))["cluster"]
    except (DeadlineExceeded, Unavailable):  # it has no leader just now
        return False
    current = [each["name"] for each in cluster.get("replicas") or [] if each["current"]]
    if cluster.get("leader") == name and len(current) == 2:
        return True
    if name in current:
        await call_api(bus, f"STREAM.LEADER.STEPDOWN.{stream}", {"placement": {"preferred": name}})
    await asyncio.sleep(0.5)
    return False


async def test_every_machine_sees_who_joins_who_leaves_and_who_dies(three: Machines) -> None:
    async with AsyncExitStack() as stack:
        views = []
        for machine in three.all:
            bus = await connect(machine.url)
            views.append(Registry(bus))
            await views[-1].start()
            stack.push_async_callback(bus.close)
            stack.push_async_callback(views[-1].stop)
        await eventually(lambda: all(set(view.nodes) == {"echo-1", "echo-2"} for view in views))
        for name in ("leaves", "dies"):
            three.node(name)
        await eventually(lambda: all({"leaves", "dies"} < set(view.nodes) for view in views), within_s=SEEN_S)
        leaves, dies = three.nodes[-2:]
        leaves.send(signal.SIGTERM)
        await eventually(lambda: all("leaves" not in view.nodes for view in views), within_s=SEEN_S)
        dies.send(signal.SIGKILL)
        await eventually(lambda: all("dies" not in view.nodes for view in views), within_s=DEAD_S)
        await asyncio.to_thread(leaves.wait)


@pytest.mark.parametrize("what", ["server", "machine"])
async def test_all_is_answered_and_kept_when_the_leader_of_all_queues_is_killed(
    three: Machines, bus: Bus, stack: ExitStack, what: str
) -> None:
    victim = leader(three)
    await lead_queues(bus, victim.name)
    others = [each.http for each in three.all if each is not victim]
    gateways = [victim.http]
    publisher = Publisher(bus)
    publishing = asyncio.ensure_future(publisher.run())
    stack.callback(publisher.stop.set)
    safe, jobs = HttpClients(lambda: others), JobBatch(lambda: others, count=60)
    near = HttpClients(lambda: gateways, count=80)
    async with under_load(safe) as load, under_load(near), asyncio.TaskGroup() as group:
        group.create_task(jobs.submit())
        await load.until(60)
        if what == "server":
            victim.kill_nats()
        else:
            gateways[:] = others
            victim.kill()
    before = len(publisher.stored)
    await eventually(lambda: len(publisher.stored) > before + 50)
    publisher.stop.set()
    await publishing
    safe.must_balance()
    # Of who asked at the dead machine each is answered at most once. A gateway outlives its server.
    near.must_balance(broken=0 if what == "server" else near.count)
    await jobs.check_recorded_once(bus)
    assert await publisher.lost() == []
