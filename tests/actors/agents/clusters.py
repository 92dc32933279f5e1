"""A cluster in the test's own process: a real NATS server, one node or more, a dispatcher and the agents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.agents.agent_host import AgentHost
from actors.agents.process import run_agents
from actors.agents.services import AgentOptions
from actors.agents.settings import AgentsSettings
from actors.backends.base import Backend
from actors.backends.openai import OpenAIBackend, OpenAISettings
from actors.bus.bus import Bus, BusSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply
from actors.bus.subjects import RunQueue
from actors.dispatcher.process import run_dispatcher
from actors.dispatcher.settings import DispatcherSettings
from actors.embedding.embedder import Embedder
from actors.node.node import Node
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.envelope import Envelope
from actors.runtime.system import ActorSystem
from actors.streams.client import StreamClient
from actors.tools.registry import ToolRegistry
from orchestration.messages import JoinedText, Run, RunEnd, TextDelta
from tests.fixtures.eventually import eventually
from tests.fixtures.reading import PATIENT
from tests.fixtures.scripted import DONE
from tests.fixtures.upstream import (
    STREAM_END,
    STREAM_HEAD,
    USAGE,
    Script,
    chunk,
    delta,
    event,
    faulty_upstream,
)


async def stream_of(text: str) -> AsyncIterator[bytes]:
    """What an upstream sends of a streamed answer, whole."""
    yield STREAM_HEAD
    for part in (event(delta(text)), event(delta(None, "stop")), event(USAGE), DONE):
        yield chunk(part)
    yield STREAM_END


@asynccontextmanager
async def upstream_cluster(
    url: str, script: Script, models: Iterable[str], settings: AgentsSettings
) -> AsyncIterator[Cluster]:
    """A cluster whose models are behind an upstream that answers by `script`."""
    async with faulty_upstream(script) as upstream:
        found = {"base_url": upstream.base_url, "models": {name: name for name in models}}
        backend = OpenAIBackend(OpenAISettings.model_validate(found))
        async with cluster(url, backend, settings) as running:
            yield running


@dataclass(slots=True)
class Cluster:
    """What a test needs of it. `streams` is a caller's, on a connection of its own; `node` is the first of
    `nodes`."""

    url: str
    bus: Bus
    system: ActorSystem
    streams: StreamClient
    node: Node
    team: AgentHost
    nodes: list[Node]


@asynccontextmanager
async def connection(url: str, name: str) -> AsyncIterator[Bus]:
    bus = await Bus.connect(BusSettings(url=url), name=name)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def cluster(
    url: str,
    backend: Backend,
    settings: AgentsSettings | None = None,
    *,
    others: Sequence[Backend] = (),
    embedder: Path | None = None,
    build_tools: Callable[[Embedder | None], ToolRegistry] | None = None,
) -> AsyncIterator[Cluster]:
    """Everything but a gateway. Each of `others` is one more node; `embedder` is the folder of a model that
    the agents embed with, and `build_tools` gives them their tools."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connection(url, "cluster"))
        await apply(bus, shipped_declaration())
        system = ActorSystem()
        nodes = [
            await stack.enter_async_context(run_node(bus, each, NodeSettings(), system))
            for each in (backend, *others)
        ]
        await stack.enter_async_context(run_dispatcher(bus, DispatcherSettings(), system))
        team = await stack.enter_async_context(
            run_agents(
                bus,
                settings or AgentsSettings(drain_timeout_s=5),
                system,
                AgentOptions(embedder=Embedder(embedder) if embedder else None, build_tools=build_tools),
            )
        )
        callers = await stack.enter_async_context(connection(url, "caller"))
        streams = StreamClient(callers, PATIENT)
        await streams.start()
        stack.push_async_callback(streams.stop)
        yield Cluster(url, bus, system, streams, nodes[0], team, nodes)


async def answered(streams: StreamClient, run: Run, within_s: float) -> tuple[str, RunEnd]:
    """The final text of a run, without what it corrected, and its end. Raises the error that it ends with."""
    text = JoinedText()
    async with aclosing(streams.stream(run, Envelope.within(within_s))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                text.add(event)
            elif isinstance(event, RunEnd):
                return text.text, event
    raise AssertionError("the stream ended without an end")


async def queued_runs(bus: Bus) -> int:
    """Runs in the queue, those at work included."""
    reply = await bus.request(f"$JS.API.STREAM.INFO.{RunQueue.STREAM}")
    return int(json.loads(reply.data)["state"]["messages"])


async def until_queued(bus: Bus, count: int, *, within_s: float = 30) -> None:
    """Wait until so many runs are in the queue."""

    async def so_many() -> bool:
        return await queued_runs(bus) == count

    await eventually(so_many, within_s=within_s)
