"""Several processes: they all follow an order, and the silence of one of them is noticed and named."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats, start_nats
from tests.fixtures.process import Process, orchestra

CHAT: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "a"}]}


@dataclass
class Machines:
    """Two gateways, a dispatcher and a node, each a process of its own."""

    nats: RunningNats
    gateways: list[str] = field(default_factory=list)
    processes: dict[str, Process] = field(default_factory=dict)

    async def get(self, gateway: int, path: str) -> Any:
        async with aiohttp.ClientSession(self.gateways[gateway]) as http, http.get(path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def post(self, gateway: int, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        async with aiohttp.ClientSession(self.gateways[gateway]) as http:
            async with http.post(path, json=body) as answer:
                return answer.status, await answer.json()

    async def paused(self, gateway: int) -> bool:
        rows = (await self.get(gateway, "/admin/queues"))["data"]
        return next(row["paused"] for row in rows if row["name"] == "generations/echo") is not None


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder: Path = tmp_path_factory.mktemp("processes")
    with ExitStack() as stack:
        nats = start_nats(folder / "nats")
        stack.callback(nats.stop)
        found = Machines(nats)

        def start(name: str, *words: str) -> Process:
            data = ("--nats", nats.url, "--data", str(folder / name))
            found.processes[name] = stack.enter_context(orchestra(*words, *data))
            return found.processes[name]

        start("node", "node", "--backend", "echo", "--id", "n1", "--serve", "echo").wait_for("serves")
        start("dispatcher", "dispatcher").wait_for("ready")
        for name in ("one", "two"):
            line = start(name, "gateway", "--http", "127.0.0.1:0").wait_for("gateway is at")
            found.gateways += re.findall(r"http://[0-9.:]+", line)
        yield found


async def test_all_gateways_and_the_dispatcher_follow_a_pause(machines: Machines) -> None:
    await eventually(lambda: served(machines))
    status, _ = await machines.post(0, "/admin/queues/pause", {"queue": "generations/echo"})
    assert status == 200
    await eventually(lambda: machines.paused(1))
    asked = [asyncio.ensure_future(machines.post(each, "/v1/chat/completions", CHAT)) for each in (0, 1)]

    async def both_wait() -> bool:
        rows = (await machines.get(1, "/admin/queues"))["data"]
        return bool(next(row["waiting"] for row in rows if row["name"] == "generations/echo") == 2)

    await eventually(both_wait)
    await machines.post(1, "/admin/queues/resume", {"queue": "generations/echo"})
    assert {status for status, _ in await asyncio.gather(*asked)} == {200}


async def served(machines: Machines) -> bool:
    """Whether both gateways see the node."""
    pages = [await machines.get(gateway, "/admin/nodes") for gateway in (0, 1)]
    return all([node["id"] for node in page["data"]] == ["n1"] for page in pages)


async def test_processes_are_listed_and_one_that_is_frozen_is_named(machines: Machines) -> None:
    async def listed() -> list[Any]:
        rows: list[Any] = (await machines.get(0, "/admin/processes"))["data"]
        return rows

    rows = await listed()
    assert sorted(row["role"] for row in rows) == ["dispatcher", "gateway", "gateway", "node"]
    assert {row["state"] for row in rows} == {"up"}
    assert next(row["nodes"] for row in rows if row["role"] == "node") == ["n1"]
    frozen = machines.processes["two"]
    (frozen_id,) = [row["id"] for row in rows if row["pid"] == frozen.pid]
    frozen.send(signal.SIGSTOP)
    try:
        shown = await machines.get(0, "/admin/cache")
        assert shown["missing"] == [frozen_id]
        assert len(shown["gateways"]) == 1

        async def silent() -> bool:
            return [row["id"] for row in await listed() if row["state"] == "silent"] == [frozen_id]

        await eventually(silent)
    finally:
        frozen.send(signal.SIGCONT)

    async def back() -> bool:
        return not (await machines.get(0, "/admin/cache"))["missing"]

    await eventually(back)


async def test_a_process_that_ends_in_good_order_is_not_missed(machines: Machines) -> None:
    ending = machines.processes["two"]
    ending.send(signal.SIGTERM)
    assert await asyncio.to_thread(ending.wait) == 0
    rows = (await machines.get(0, "/admin/processes"))["data"]
    assert sorted(row["role"] for row in rows) == ["dispatcher", "gateway", "node"]
    assert (await machines.get(0, "/admin/cache"))["missing"] == []
