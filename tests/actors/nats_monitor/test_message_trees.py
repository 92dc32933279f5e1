"""The spans of NATS servers stand in the tree of their request, at a real receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from actors.bus.bus import Bus, BusSettings
from actors.nats_monitor import held_spans
from actors.nats_monitor.message_records import MessageSpan
from actors.nats_monitor.process import traced_messages
from actors.nats_server import EmbeddedNats, NatsServerSettings
from actors.runtime.envelope import Envelope
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
    async with AsyncExitStack() as stack:
        for bus in buses:
            await stack.enter_async_context(traced_messages(bus, told.telemetry[0]))
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


async def test_servers_are_asked_only_while_it_is_switched_on(own_nats: RunningNats, told: Receiver) -> None:
    (telemetry,) = told.telemetry
    bus = await Bus.connect(BusSettings(url=own_nats.url), name="test")
    async with traced_messages(bus, telemetry) as tracing:
        assert bus.message_tracer is not None
        tracing.update_settings(telemetry.settings.model_copy(update={"nats_messages": False}))
        assert bus.message_tracer is None
        tracing.update_settings(telemetry.settings)
        assert bus.message_tracer is not None
    assert bus.message_tracer is None
    await bus.close()


async def test_the_span_of_a_server_is_exported_once_that_of_the_sender_has_ended(
    own_nats: RunningNats, told: Receiver
) -> None:
    """A sender that drops its span leaves no orphans behind."""
    bus = await Bus.connect(BusSettings(url=own_nats.url), name="test")
    async with traced_messages(bus, told.telemetry[0]):
        with start_span("test", "") as root:
            trace = root.traceparent[3:35]
            dropped, kept = [start_span(name, root.traceparent) for name in ("dropped", "kept")]
            before = records("ok")
            for span in (dropped, kept):
                await bus.publish("work", headers={"traceparent": span.traceparent})
            await eventually(lambda: records("ok") == before + 2)
            await told.flush()
            assert told.tree(trace).spans == []
            dropped.abandon()
            kept.end()
            await bus.publish("work", headers={"traceparent": kept.traceparent})
            await eventually(lambda: records("ok") == before + 3)
        tree = await told.whole_tree(trace, "kept", "test", "route")
        assert len(tree.named("route")) == 2
        assert {tree.parent(span).name for span in tree.named("route")} == {"kept"}
    await bus.close()


async def test_senders_beyond_the_limit_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_spans, "MAX_SENDERS", 2)
    held = held_spans.HeldSpans()
    parents = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2, 3)]
    for parent in parents:
        held.expect(parent)
    assert len(held) == 2
    span = MessageSpan(name="route other", began_ns=1, ended_ns=2, attributes={})
    assert [held.add(span, parent) for parent in parents] == [False, True, True]


def records(outcome: str) -> float:
    return REGISTRY.get_sample_value("orchestra_nats_trace_records_total", {"outcome": outcome}) or 0.0
