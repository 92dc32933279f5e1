"""Nodes that are processes of their own, and hundreds of callers who check every event they get."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from actors.runtime.envelope import Envelope
from orchestration.errors import BusUnavailable
from orchestration.messages import Chunk, Ended
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import Process, orchestra
from tests.fixtures.stage import Stage

REQUESTS = 300
TOKENS = 40
AT_ONCE = 60


@dataclass(slots=True)
class Answers:
    """What callers got: the node that ended each answer, by the number of the caller."""

    nodes: dict[int, str] = field(default_factory=dict)
    begun: int = 0
    """Streams that have had a first chunk."""

    def by(self) -> Counter[str]:
        return Counter(self.nodes.values())


@dataclass(slots=True)
class Fleet:
    """Echo nodes at 100 tokens a second that take 0.1 s to the first one, so that at any moment some
    answers wait, some are read in and some are being written."""

    stage: Stage
    nats: RunningNats
    folder: Path
    processes: dict[str, Process] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)

    def node(self, name: str, *, slots: int = 16) -> Process:
        words = ("--id", name, "--serve", self.stage.model, "--slots", str(slots), "--speed", "100")
        return self.start(name, "node", "--backend", "echo", *words)

    def start(self, name: str, *words: str, **environment: str) -> Process:
        process = orchestra(
            *words,
            "--nats",
            self.nats.url,
            "--data",
            str(self.folder),
            cwd=None,
            ORCHESTRA_ECHO__FIRST_TOKEN_S="0.1",
            ORCHESTRA_NATS__RECONNECT_WAIT_S="0.1",
            **environment,
        )
        self.processes[name] = process
        return process

    async def nodes(self, *names: str) -> None:
        """Start them, and wait until all have joined."""
        started = [self.node(name) for name in names]
        await asyncio.gather(*(asyncio.to_thread(each.wait_for, "serves") for each in started))

    def send(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send(number)

    async def load(self) -> None:
        """`REQUESTS` callers, `AT_ONCE` at a time. Each must get its whole answer, without gap or repeat."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def call(number: int) -> None:
            async with gate:
                await self._call(number)

        async with asyncio.TaskGroup() as group:
            for number in range(REQUESTS):
                group.create_task(call(number))
        assert len(self.answers.nodes) == REQUESTS

    async def _call(self, number: int) -> None:
        words = f"caller {number} wants all of this"
        while True:
            try:
                ended = await self._answer(number, words)
            except BusUnavailable:  # not accepted: NATS was away
                await asyncio.sleep(0.05)
                continue
            assert ended.usage.completion_tokens == TOKENS
            assert number not in self.answers.nodes
            self.answers.nodes[number] = ended.node
            return

    async def _answer(self, number: int, words: str) -> Ended:
        asked = words.split()
        text, seq = "", 0
        generation = self.stage.generation(words, tokens=TOKENS)
        async with aclosing(self.stage.asker.stream(generation, Envelope.within(60))) as events:
            try:
                async for event in events:
                    assert event.seq == seq
                    seq += 1
                    if isinstance(event, Ended):
                        assert text.split() == [asked[n % len(asked)] for n in range(TOKENS)]
                        return event
                    assert isinstance(event, Chunk)
                    self.answers.begun += not text
                    text += event.text
            except BusUnavailable:
                assert not text, f"caller {number} was told after {text!r}"
                raise
        raise AssertionError("no end")

    async def until_answered(self, count: int, loading: asyncio.Task[None]) -> None:
        """Until so many are answered; fails when the load ends before."""
        await self._until(lambda: len(self.answers.nodes) >= count, loading)

    async def _until(self, condition: Callable[[], bool], loading: asyncio.Task[None]) -> None:
        await eventually(lambda: condition() or loading.done(), within_s=60)
        if loading.done():
            loading.result()
            raise AssertionError("all was answered before the fault")

    def end(self) -> None:
        for process in self.processes.values():
            if process.process.poll() is None:
                process.send(signal.SIGCONT)
                process.send(signal.SIGKILL)
            process.__exit__(None, None, None)
