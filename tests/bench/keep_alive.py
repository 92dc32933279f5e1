"""What it costs to keep 1,000 generations at work from redelivery.

`python -m tests.bench keep_alive` has a dispatcher hold 1,000 generations that say nothing, and prints the
CPU time of the dispatcher and of nats-server a second, with the keep-alive as shipped and with a rare one.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from contextlib import aclosing
from pathlib import Path

import psutil
import uvloop

from actors.dispatcher import DispatcherSettings
from actors.runtime.envelope import Envelope
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import start_nats
from tests.fixtures.process import orchestra

AT_WORK = 1_000
SECONDS = 20.0
SHIPPED_S = DispatcherSettings().keep_alive_s
RARE_S = 5.5
"""The ack_wait is 6 s: more, and the work would come again."""


async def wait_for_ever(cluster: LocalCluster) -> None:
    async with aclosing(cluster.streams.stream(cluster.generation(), Envelope.within(600))) as events:
        async for _ in events:
            pass


def cpu_s(*pids: int) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)


async def measure(keep_alive_s: float, folder: Path) -> None:
    nats = start_nats(folder / "nats")
    common = ("--nats", nats.url, "--data", str(folder))
    async with local_cluster(nats.url) as cluster:
        registry = await cluster.registry()
        dispatcher = orchestra("dispatcher", *common, ORCHESTRA_DISPATCHER__KEEP_ALIVE_S=str(keep_alive_s))
        node = ("node", "--backend", "echo", "--id", "n", "--serve", cluster.model, "--slots", str(AT_WORK))
        silent = orchestra(*node, *common, ORCHESTRA_ECHO__FIRST_TOKEN_S="3600")
        try:
            await eventually(lambda: "n" in registry.nodes, within_s=30)
            asking = [asyncio.ensure_future(wait_for_ever(cluster)) for _ in range(AT_WORK)]
            await eventually(lambda: registry.nodes["n"].running == AT_WORK, within_s=60)
            server = psutil.Process(nats.process.pid)
            servers = [server.pid, *(child.pid for child in server.children())]
            await asyncio.sleep(SECONDS / 4)
            before = cpu_s(dispatcher.pid), cpu_s(*servers)
            await asyncio.sleep(SECONDS)
            after = cpu_s(dispatcher.pid), cpu_s(*servers)
            spent = [(late - early) / SECONDS * 1e3 for early, late in zip(before, after, strict=True)]
            print(
                f"keep-alive every {keep_alive_s:g} s, {AT_WORK} at work: "
                f"dispatcher {spent[0]:.1f} ms, nats-server {spent[1]:.1f} ms of CPU a second"
            )
            for each in asking:
                each.cancel()
            await asyncio.wait(asking)
        finally:
            for process in (dispatcher, silent):
                process.send(signal.SIGKILL)
                process.__exit__(None, None, None)
    nats.stop()


async def main() -> None:
    for keep_alive_s in (RARE_S, SHIPPED_S):
        with tempfile.TemporaryDirectory() as folder:
            await measure(keep_alive_s, Path(folder))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
