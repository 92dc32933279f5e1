"""Two of each role, each a process of its own, serve as one of each does; and their one NATS restarts."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from actors.bus.bus import Bus
from actors.cluster.registry import Registry
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import Process, orchestra
from tests.scenarios.cluster.asking import Publisher, ask_all, connect

ROLES = ("gateway", "agents", "dispatcher", "node")


@pytest.fixture
def processes(own_nats: RunningNats, tmp_path: Path) -> Iterator[list[Process]]:
    """Gateways first, then the rest, all ready."""
    words = {
        "gateway": ("--http", "127.0.0.1:0"),
        "node": ("--backend", "echo"),
    }
    lines = {
        "gateway": "gateway is at",
        "agents": "are ready",
        "dispatcher": "is ready",
        "node": "serves echo",
    }
    with ExitStack() as stack:
        started = []
        for role in ROLES:
            for number in range(2):
                usual = (role, "--nats", own_nats.url, "--data", str(tmp_path / f"{role}{number}"))
                process = stack.enter_context(orchestra(*usual, *words.get(role, ())))
                started.append((process, lines[role]))
        for process, line in started:
            process.wait_for(line)
        yield [process for process, _ in started]
        for process, _ in started:  # at once, as each takes its time to drain
            process.send(signal.SIGTERM)


@pytest.fixture
async def apart(own_nats: RunningNats) -> AsyncIterator[Bus]:
    bus = await connect(own_nats.url)
    yield bus
    await bus.close()


async def gateways(processes: list[Process], apart: Bus) -> list[str]:
    """Their addresses, once each of them can answer."""
    registry = Registry(apart)
    await registry.start()
    await eventually(lambda: len(registry.nodes) == 2)
    await registry.stop()
    urls = [re.findall(r"http://\S+", process.said)[0] for process in processes[:2]]
    async with aiohttp.ClientSession() as session:
        for url in urls:
            async with asyncio.timeout(30):
                while (await session.get(f"{url}/readyz")).status != 200:  # noqa: ASYNC110 - asks it
                    await asyncio.sleep(0.05)
    return urls


async def test_two_of_each_role_answer_all_requests_and_share_them(
    processes: list[Process], apart: Bus
) -> None:
    urls = await gateways(processes, apart)
    for model in ("echo", "orchestra/single"):
        answers = await ask_all(lambda: urls, 300, model=model)
        answers.must_be_whole(300)
        assert not answers.errors
    shares = [await answered_by(url) for url in urls]
    assert min(shares) > 0.2 * sum(shares)


async def answered_by(url: str) -> float:
    """Requests that a gateway has answered."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as reply:
        lines = (await reply.text()).splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("orchestra_gateway_requests_total")
    )


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_when_nats_restarts_under_load_all_is_answered_and_nothing_queued_is_lost(
    processes: list[Process], apart: Bus, own_nats: RunningNats, how: str
) -> None:
    urls = await gateways(processes, apart)
    publisher = Publisher(apart)
    publishing = asyncio.ensure_future(publisher.run())
    restarted: list[asyncio.Future[None]] = []

    def restart() -> None:
        own_nats.stop() if how == "stopped" else own_nats.kill()
        own_nats.restart()

    def answered(count: int) -> None:
        if count == 100 and not restarted:
            restarted.append(asyncio.ensure_future(asyncio.to_thread(restart)))

    answers = await ask_all(lambda: urls, 300, answered=answered)
    await restarted[0]
    before = len(publisher.stored)
    await eventually(lambda: len(publisher.stored) > before + 50)
    publisher.stop.set()
    await publishing
    answers.must_be_whole(300)
    assert await publisher.lost() == []
