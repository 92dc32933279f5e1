"""A cluster in the test's own process: a real NATS server, a node, a dispatcher and the agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.agents.role import run_agents
from actors.agents.settings import AgentsSettings
from actors.agents.team import Team
from actors.asker import Asker
from actors.declarations import shipped
from actors.dispatcher.role import run_dispatcher
from actors.dispatcher.settings import DispatcherSettings
from actors.node.backends.base import Backend
from actors.node.node import Node
from actors.node.role import run_node
from actors.node.settings import NodeSettings
from actors.runtime.bus import Bus, BusSettings
from actors.runtime.provision import apply
from actors.runtime.system import ActorSystem
from tests.fixtures.models import smollm2_folder
from tests.fixtures.nats import RunningNats, start_nats


@dataclass(slots=True)
class Cluster:
    """What a test needs of it. `asker` is a caller's, on a connection of its own."""

    url: str
    bus: Bus
    system: ActorSystem
    asker: Asker
    node: Node
    team: Team


@asynccontextmanager
async def connection(url: str, name: str) -> AsyncIterator[Bus]:
    bus = await Bus.connect(BusSettings(url=url), name=name)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def cluster(
    url: str, backend: Backend, settings: AgentsSettings | None = None
) -> AsyncIterator[Cluster]:
    """Everything but a gateway."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connection(url, "cluster"))
        await apply(bus, shipped())
        system = ActorSystem()
        node = await stack.enter_async_context(run_node(bus, backend, NodeSettings(), system))
        await stack.enter_async_context(run_dispatcher(bus, DispatcherSettings(), system))
        team = await stack.enter_async_context(
            run_agents(bus, settings or AgentsSettings(drain_timeout_s=5), system)
        )
        callers = await stack.enter_async_context(connection(url, "caller"))
        asker = Asker(callers)
        await asker.start()
        stack.push_async_callback(asker.stop)
        yield Cluster(url, bus, system, asker, node, team)


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNats]:
    """A server for one module: its queues are nobody else's."""
    server = start_nats(tmp_path_factory.mktemp("nats"))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def model_folder() -> Path:
    return smollm2_folder()
