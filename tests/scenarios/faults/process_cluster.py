"""Every role a process of its own, started as a user starts it, on one nats-server that is one too."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from actors.bus.bus import Bus, BusSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply
from actors.cluster.registry import Registry
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import stored_in
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import Process, orchestra

SETTLED_S = 30.0
"""A queue is empty so long after the last answer, at the latest: what a killed process held comes back once
more when its ack_wait is over, and finds that nobody wants it any more."""


@dataclass(slots=True)
class ProcessCluster:
    """`registry` is the test's own view of the nodes; `gateways` are the addresses to ask at."""

    nats: RunningNats
    folder: Path
    bus: Bus
    registry: Registry
    processes: dict[str, Process] = field(default_factory=dict)
    gateways: list[str] = field(default_factory=list)

    async def start(self, name: str, *words: str, before: Sequence[str] = (), **environment: str) -> Process:
        """Start `orchestra WORDS` under that name, and wait until it says that it is there."""
        usual = ("--nats", self.nats.url, "--data", str(self.folder))
        process = self.processes[name] = orchestra(*words, *usual, cwd=None, before=before, **environment)
        await asyncio.to_thread(process.wait_for, "Orchestra ")
        return process

    async def node(
        self, name: str, *words: str, first_token_s: float = 0.1, before: Sequence[str] = ()
    ) -> None:
        """An echo node of 16 slots at 60 tokens a second, so that at any moment some answers wait for their
        first token and some are being written."""
        usual = ("node", "--backend", "echo", "--id", name, "--slots", "16", "--speed", "60")
        await self.start(
            name, *usual, *words, before=before, ORCHESTRA_ECHO__FIRST_TOKEN_S=str(first_token_s)
        )
        await eventually(lambda: name in self.registry.nodes)

    async def gateway(self, name: str) -> str:
        """Its address."""
        process = await self.start(name, "gateway", "--http", "127.0.0.1:0")
        found = re.search(r"http://\S+", process.said)
        assert found is not None
        self.gateways.append(found[0])
        return found[0]

    async def ready(self) -> None:
        """Wait until every gateway can answer."""
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            for url in self.gateways:
                while (await session.get(f"{url}/readyz")).status != 200:  # noqa: ASYNC110 - asks it
                    await asyncio.sleep(0.05)

    async def until_busy(self, node: str, count: int = 4) -> None:
        """Wait until that node has so many answers under way."""
        await eventually(lambda: self.registry.nodes[node].running >= count)

    def kill(self, name: str) -> None:
        self.processes[name].send(signal.SIGKILL)

    def freeze(self, name: str) -> None:
        self.processes[name].send(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self.processes[name].send(signal.SIGCONT)

    async def settled(self) -> None:
        """Wait until nothing is left of what went through: no message in a queue, nothing on a node."""
        async with asyncio.timeout(SETTLED_S):
            while await self._left():  # noqa: ASYNC110 - asks the server each time
                await asyncio.sleep(0.1)

    async def _left(self) -> int:
        queued = [await stored_in(self.bus, stream) for stream in ("RUNS", "GENERATIONS")]
        return sum(queued) + sum(node.running for node in self.registry.nodes.values())

    def end(self) -> None:
        for process in self.processes.values():
            if process.process.poll() is None:
                process.send(signal.SIGKILL)  # which ends a frozen one too
            process.__exit__(None, None, None)


@asynccontextmanager
async def running_process_cluster(nats: RunningNats, folder: Path) -> AsyncIterator[ProcessCluster]:
    """Yields a cluster without a process yet; all that it starts are killed after the block."""
    bus = await Bus.connect(BusSettings(url=nats.url), name="faults")
    await apply(bus, shipped_declaration())
    registry = Registry(bus)
    await registry.start()
    processes = ProcessCluster(nats, folder, bus, registry)
    try:
        yield processes
    finally:
        processes.end()
        await registry.stop()
        await bus.close()
