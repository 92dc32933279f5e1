"""Advisories of a cluster: a new leader and a lost quorum are counted once, whoever listens where."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from actors.bus.bus import Bus, BusSettings
from actors.bus.depth_reader import read_depth
from actors.bus.provision import call_api
from actors.nats_monitor.advisories import AdvisoryListener
from actors.nats_server import EmbeddedNats, NatsServerSettings
from actors.telemetry.event_log import event_log
from orchestration.errors import DeadlineExceeded, Unavailable
from orchestration.log_events import LogEvent, LogLevel
from tests.fixtures.eventually import eventually
from tests.fixtures.machines import free_ports

STREAM = {"name": "kept", "subjects": ["kept.>"], "num_replicas": 3, "storage": "file"}


def counted(kind: str) -> float:
    return REGISTRY.get_sample_value("orchestra_nats_advisories_total", {"kind": kind}) or 0.0


async def created(bus: Bus) -> dict[str, Any] | None:
    """The stream; None while the cluster has no leader."""
    try:
        return await call_api(bus, "STREAM.CREATE.kept", STREAM)
    except (Unavailable, DeadlineExceeded):
        return None


async def missing(bus: Bus, count: int) -> bool:
    """Whether the stream lacks `count` replicas now."""
    try:
        (stream,) = [each for each in (await read_depth(bus)).streams if each.name == "kept"]
    except (Unavailable, DeadlineExceeded):
        return False
    return stream.replicas_missing == count


async def test_a_new_leader_and_a_lost_quorum_are_counted_once(tmp_path: Path) -> None:
    ports = free_ports(3)
    events: list[LogEvent] = []
    event_log.add_sink(events.append)
    async with AsyncExitStack() as stack:
        stack.callback(event_log.remove_sink, events.append)
        servers: dict[str, EmbeddedNats] = {}
        buses: dict[str, Bus] = {}
        ends: dict[str, AsyncExitStack] = {}
        for port in ports:
            name, others = f"s{port}", tuple(f"127.0.0.1:{other}" for other in ports if other != port)
            settings = NatsServerSettings(data=tmp_path / name, name=name, cluster_port=port, join=others)
            ends[name] = await stack.enter_async_context(AsyncExitStack())
            servers[name] = await ends[name].enter_async_context(EmbeddedNats(settings))
            buses[name] = await Bus.connect(BusSettings(url=servers[name].url), name=name)
            ends[name].push_async_callback(buses[name].close)
            listener = AdvisoryListener(buses[name], events_per_minute=100)
            await listener.start()
        elected, lost = counted("stream_leader_elected"), counted("stream_quorum_lost")
        found = await eventually(lambda: created(next(iter(buses.values()))), within_s=40)
        await eventually(lambda: counted("stream_leader_elected") == elected + 1)
        leader = found["cluster"]["leader"]
        await eventually(lambda: missing(buses[leader], 0))
        (other, *_) = ends.keys() - {leader}
        await ends[other].aclose()
        await eventually(lambda: missing(buses[leader], 1))
        for name, end in ends.items():
            if name != leader:
                await end.aclose()
        await eventually(lambda: counted("stream_quorum_lost") == lost + 1, within_s=60)
        await buses[leader].flush()
        assert counted("stream_quorum_lost") == lost + 1
        (event,) = [each for each in events if each.name == "nats.stream_quorum_lost"]
        assert event.level is LogLevel.ERROR
        assert event.data["stream"] == "kept"
