"""From one machine to three and four: nothing queued is lost, and everything is kept three times."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.bus.bus import Bus
from actors.bus.jetstream import enqueue
from actors.bus.key_value import Bucket
from actors.bus.provision import call_api
from tests.fixtures.machines import Machine, Machines, machines
from tests.scenarios.cluster.asking import UNSERVED, connect


@pytest.fixture
def four(tmp_path: Path) -> Iterator[Machines]:
    with machines(tmp_path, 4) as made:
        yield made


def status(machine: Machine) -> dict[str, Any]:
    words = ("status", "--json", "--nats", machine.url)
    done = subprocess.run(
        [sys.executable, "-m", "actors.cli", *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def queued(bus: Bus) -> list[bytes]:
    """The bodies of the waiting generations, in order."""
    found: list[bytes] = []
    last = 0
    while True:
        body = json.dumps({"seq": last + 1, "next_by_subj": "generations.>"}).encode()
        reply = await bus.request("$JS.API.DIRECT.GET.GENERATIONS", body)
        if reply.status:
            return found
        last = int(reply.header("Nats-Sequence"))
        found.append(reply.data)
        assert reply.header("Orchestra-Id") == f"id-{reply.data.decode()}"


async def until_kept_three_times(bus: Bus) -> None:
    async with asyncio.timeout(30):
        while True:
            streams = (await call_api(bus, "STREAM.LIST"))["streams"]
            replicas = [each["cluster"].get("replicas") or [] for each in streams]
            if all(len(each) == 2 and all(one["current"] for one in each) for each in replicas):
                return
            await asyncio.sleep(0.1)


async def test_one_machine_grows_to_three_without_losing_its_queue_and_a_fourth_is_a_plain_peer(
    four: Machines,
) -> None:
    first, second, third, fourth = four.all
    first.start()
    await asyncio.to_thread(first.ready)
    alone = await connect(first.url)
    assert status(first)["nats"]["servers"] == []
    bodies = [str(number).encode() for number in range(300)]
    for body in bodies:
        await enqueue(alone, UNSERVED, body, {"Orchestra-Id": f"id-{body.decode()}"})
    await Bucket(alone, "results").put("finished/1", b"the result")
    await alone.close()
    await asyncio.to_thread(first.stop)

    first.start(second, third)
    second.start(first)
    third.start(first)
    for each in (first, second, third):
        await asyncio.to_thread(each.ready)
    bus = await connect(third.url)
    await until_kept_three_times(bus)
    assert await queued(bus) == bodies
    entry = await Bucket(bus, "results").get("finished/1")
    assert entry is not None
    assert entry.value == b"the result"

    fourth.start(first)
    await asyncio.to_thread(fourth.ready)
    found = status(fourth)["nats"]
    assert [each["name"] for each in found["servers"]] == ["m0", "m1", "m2"]
    assert found["replicas"] == 3
    assert f"127.0.0.1:{fourth.port}" in found["urls"]
    await asyncio.to_thread(fourth.kill)
    await bus.wait_connected(30)
    await enqueue(bus, UNSERVED, b"300", {"Orchestra-Id": "id-300"})
    await bus.close()

    await asyncio.to_thread(second.stop)
    second.start()  # alone, on a store that belongs to the cluster
    assert second.process is not None
    await asyncio.to_thread(second.process.wait_for, "belongs to a cluster")
