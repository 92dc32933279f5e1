"""What actors cost: memory and start of 1,000 idle ones, and messages a second through one.

`python -m tests.bench.actors` measures, in the same run, the plainest thing that does the same: a task that
reads an asyncio.Queue and answers through a future. Each case is a fresh process, so that memory is its own.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import uvloop

from actors.runtime.actor import Actor
from actors.runtime.actor_host import ActorRef
from actors.runtime.system import ActorSystem
from tests.fixtures.ask import ask

ACTORS = 1_000
MESSAGES = 20_000
AT_ONCE = 64
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Add:
    """A message with an answer."""

    number: int


class Adder(Actor):
    """Counts, as an actor that has state does."""

    def __init__(self) -> None:
        self.total = 0

    async def on_add(self, message: Add) -> int:
        self.total += message.number
        return self.total


class PlainAdder:
    """The peer: a queue, a task, and a future for each answer; no limit, deadline, supervisor or metric."""

    def __init__(self) -> None:
        self.total = 0
        self.queue: asyncio.Queue[tuple[Add, asyncio.Future[int]]] = asyncio.Queue()
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            message, answer = await self.queue.get()
            self.total += message.number
            if not answer.done():
                answer.set_result(self.total)

    async def ask(self, message: Add) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((message, answer))
        return await answer


async def spawn_actors(count: int) -> list[Callable[[Add], Awaitable[Any]]]:
    """Actors of one system, and how each is asked."""
    system = ActorSystem()
    refs: list[ActorRef] = [await system.spawn(Adder, Adder, name=f"adder {n}") for n in range(count)]
    return [partial(ask, ref) for ref in refs]


async def spawn_plain(count: int) -> list[Callable[[Add], Awaitable[Any]]]:
    """As many peers; their tasks have reached their queues."""
    adders = [PlainAdder() for _ in range(count)]
    await asyncio.sleep(0)
    return [adder.ask for adder in adders]


async def measure(
    spawn: Callable[[int], Awaitable[list[Callable[[Add], Awaitable[Any]]]]],
) -> dict[str, float]:
    """Of this process: bytes and microseconds an idle actor, messages a second alone and many at once."""
    (warm,) = await spawn(1)
    await warm(Add(1))
    gc.collect()
    process = psutil.Process()
    before, began = process.memory_info().rss, time.perf_counter()
    asks = await spawn(ACTORS)
    seconds = time.perf_counter() - began
    gc.collect()
    idle = (process.memory_info().rss - before) / ACTORS
    began = time.perf_counter()
    for _ in range(MESSAGES):
        await asks[0](Add(1))
    alone = MESSAGES / (time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(MESSAGES // AT_ONCE):
        await asyncio.gather(*(asks[0](Add(1)) for _ in range(AT_ONCE)))
    at_once = MESSAGES // AT_ONCE * AT_ONCE / (time.perf_counter() - began)
    return {"bytes": idle, "start_us": seconds / ACTORS * 1e6, "alone": alone, "at_once": at_once}


KINDS = {"orchestra": spawn_actors, "queue + task": spawn_plain}


def run_apart(kind: str) -> dict[str, float]:
    """Measure in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.actors", kind], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the table, or with an argument the figures of one kind as JSON."""
    if len(sys.argv) > 1 and sys.argv[1] in KINDS:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(json.dumps(runner.run(measure(KINDS[sys.argv[1]]))))
        return
    print(f"medians of {ROUNDS} processes each; {ACTORS} actors, {MESSAGES} messages through one")
    print(f"{'':<14}{'bytes/actor':>12}{'µs to start':>12}{'messages/s':>12}{f'at {AT_ONCE} at once':>15}")
    rounds = [{kind: run_apart(kind) for kind in KINDS} for _ in range(ROUNDS)]
    for kind in KINDS:
        middle = {name: statistics.median(each[kind][name] for each in rounds) for name in rounds[0][kind]}
        print(
            f"{kind:<14}{middle['bytes']:>12.0f}{middle['start_us']:>12.1f}"
            f"{middle['alone']:>12.0f}{middle['at_once']:>15.0f}"
        )


if __name__ == "__main__":
    main()
