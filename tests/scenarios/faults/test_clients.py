"""Clients that go away in the middle of a stream."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import ClassVar

from actors.backends.base import Output
from actors.backends.echo import EchoBackend, EchoSettings
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.envelope import Envelope
from actors.runtime.system import ActorSystem
from orchestration.messages import Generation, TextDelta
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster


class Counting(EchoBackend):
    """Counts the tokens of each generation."""

    tokens: ClassVar[Counter[str]] = Counter()

    async def generate(self, generation: Generation) -> AsyncGenerator[Output, None]:
        async with aclosing(super().generate(generation)) as outputs:
            async for output in outputs:
                self.tokens[generation.id] += isinstance(output, TextDelta)
                yield output


async def test_the_engine_stops_within_two_tokens_of_its_client_leaving(cluster: LocalCluster) -> None:
    backend = Counting(
        EchoSettings(models=(cluster.model,), slots=64, speed=2)
    )  # a token each 0.5 s, however slow the machine
    async with run_node(cluster.node_bus, backend, NodeSettings(id="counting"), ActorSystem()) as node:
        dispatcher = await cluster.dispatcher(sees=1)

        async def leave_early() -> int:
            generation = cluster.generation(tokens=1000)
            async with aclosing(cluster.streams.stream(generation, Envelope.within(60))) as events:
                for _ in range(3):
                    await anext(events)
                had = backend.tokens[generation.id]
            await eventually(lambda: generation.id not in node._active)
            return backend.tokens[generation.id] - had

        after = await asyncio.gather(*(leave_early() for _ in range(60)))
        assert max(after) <= 2
        await cluster.settled(dispatcher)
