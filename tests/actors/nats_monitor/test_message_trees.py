"""The spans of NATS servers stand in the tree of their request, at a real receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest

from actors.bus.bus import Bus, BusSettings
from actors.nats_monitor.process import traced_messages
from actors.nats_server import EmbeddedNats, NatsServerSettings
from actors.runtime.envelope import Envelope
from actors.telemetry.identity import ProcessIdentity
from actors.telemetry.settings import TelemetrySettings
from actors.telemetry.tracing import start_span
from orchestration.errors import DeadlineExceeded, Unavailable
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.machines import free_ports
from tests.fixtures.nats import RunningNats
from tests.fixtures.receiver import Receiver, Tree, attributes, failed, receiver


@pytest.fixture
async def told() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        made.trace()
        yield made


@asynccontextmanager
async def observed(told: Receiver, *buses: Bus) -> AsyncIterator[None]:
    """As in processes of these connections."""
    settings = TelemetrySettings(otlp_endpoint=told.url)
    async with AsyncExitStack() as stack:
        for bus in buses:
            identity = ProcessIdentity.of_this_process("up")
            await stack.enter_async_context(traced_messages(bus, settings, identity))
            await bus.flush()
        yield


async def ask(cluster: LocalCluster) -> str:
    """A generation in a trace of its own, whose id is returned."""
    with start_span("test", "") as root:
        envelope = Envelope.within(30, trace=root.traceparent)
        async with aclosing(cluster.streams.stream(cluster.generation("one two"), envelope)) as events:
            async for _ in events:
                pass
    return root.traceparent[3:35]


def servers(tree: Tree, name: str) -> list[str]:
    return [attributes(span)["nats.server.name"] for span in tree.named(name)]


async def test_a_queued_generation_shows_its_way_through_the_server(
    own_nats: RunningNats, told: Receiver
) -> None:
    async with local_cluster(own_nats.url, direct=False, together=False) as cluster:
        await cluster.node()
        await cluster.dispatcher()
        async with observed(told, cluster.bus, cluster.node_bus):
            trace = await ask(cluster)
            tree = await told.whole_tree(
                trace, "route generations.{priority}.{model}", "route node.{node}.generate"
            )
    (stored,) = tree.named("store GENERATIONS")
    (route,) = tree.named("route generations.{priority}.{model}")
    assert tree.parent(stored) is route
    assert len(tree.named("route ")) == 2
    assert not [span.name for span in tree.spans if failed(span)]
    assert cluster.model not in {span.name for span in tree.named("route ")}


async def test_a_generation_on_a_node_of_another_server_shows_both_servers(
    tmp_path: Path, told: Receiver
) -> None:
    ports = free_ports(2)
    async with AsyncExitStack() as stack:
        urls = []
        for port, other in (ports, ports[::-1]):
            settings = NatsServerSettings(
                data=tmp_path / str(port), name=f"s{port}", cluster_port=port, join=(f"127.0.0.1:{other}",)
            )
            urls.append((await stack.enter_async_context(EmbeddedNats(settings))).url)
        far = await Bus.connect(BusSettings(url=urls[1]), name="far")
        stack.push_async_callback(far.close)
        await eventually(lambda: has_leader(far), within_s=40)
        cluster = await stack.enter_async_context(local_cluster(urls[0], direct=True, together=False))
        await cluster.node(bus=far)
        await cluster.dispatcher()
        await stack.enter_async_context(observed(told, cluster.bus, far))
        trace = await ask(cluster)
        await told.whole_tree(trace, "route node.{node}.generate")
        await eventually(lambda: both(told, trace))
        tree = told.tree(trace)
        assert tree.problems() == []
        assert sorted(servers(tree, "route node.{node}.generate")) == sorted(f"s{port}" for port in ports)
        parents = {tree.parent(span).span_id for span in tree.named("route node.{node}.generate")}
        assert len(parents) == 1


async def both(told: Receiver, trace: str) -> bool:
    await told.flush()
    return len(told.tree(trace).named("route node.{node}.generate")) == 2


async def has_leader(bus: Bus) -> bool:
    try:
        await bus.request("$JS.API.INFO", timeout=1)
    except (Unavailable, DeadlineExceeded):
        return False
    return True


async def test_without_a_collector_or_when_switched_off_no_server_is_asked(own_nats: RunningNats) -> None:
    bus = await Bus.connect(BusSettings(url=own_nats.url), name="test")
    identity = ProcessIdentity.of_this_process("up")
    endpoint = "http://127.0.0.1:9"
    for off in (TelemetrySettings(), TelemetrySettings(otlp_endpoint=endpoint, nats_messages=False)):
        async with traced_messages(bus, off, identity):
            assert bus.message_traces is None
    on = TelemetrySettings(otlp_endpoint=endpoint)
    async with traced_messages(bus, on, identity) as tracing:
        assert bus.message_traces is not None
        tracing.update_settings(on.model_copy(update={"nats_messages": False}))
        assert bus.message_traces is None
        tracing.update_settings(on)
        assert bus.message_traces is not None
    assert bus.message_traces is None
    await bus.close()
