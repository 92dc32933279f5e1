"""One process of the cluster exports the depth of the queues, and advisories are counted once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from actors.bus.bus import Bus, BusSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.jetstream import Delivery, Puller, enqueue
from actors.bus.provision import apply
from actors.bus.queue_depth import ClusterDepth
from actors.bus.subjects import GenerationQueue, RunQueue
from actors.nats_monitor import monitor as monitor_module
from actors.nats_monitor.advisories import AdvisoryListener
from actors.nats_monitor.depth_metrics import DepthMetrics
from actors.nats_monitor.monitor import MONITOR_LEADER, READINGS_FAILED, STALE_READINGS, NatsMonitor
from actors.nats_monitor.settings import NatsMonitorSettings
from actors.telemetry.event_log import event_log
from actors.telemetry.exposition import exposition
from actors.telemetry.labels import MODELS
from orchestration.errors import BusUnavailable
from orchestration.log_events import LogEvent, LogLevel
from orchestration.priority import Priority
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import api
from tests.fixtures.nats import RunningNats, module_nats

__all__ = ["module_nats"]

SOON = NatsMonitorSettings(interval_s=0.1)


@pytest.fixture
async def bus(nats: RunningNats) -> AsyncIterator[Bus]:
    bus = await Bus.connect(BusSettings(url=nats.url), name="test")
    await apply(bus, shipped_declaration())
    yield bus
    for stream in shipped_declaration().streams:
        await api(bus, f"STREAM.PURGE.{stream.name}")
    await bus.close()


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    found: list[LogEvent] = []
    event_log.add_sink(found.append)
    yield found
    event_log.remove_sink(found.append)


@pytest.fixture
async def monitors(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[NatsMonitor]]:
    """Two, as in two processes."""
    monkeypatch.setattr(monitor_module, "RENEW_S", 0.3)
    monitors = [NatsMonitor(bus, name, SOON) for name in ("one", "two")]
    for each in monitors:
        await each.start()
    yield monitors
    for each in monitors:
        await each.stop()


def leader(monitors: list[NatsMonitor]) -> NatsMonitor | None:
    return next((each for each in monitors if each.metrics.depth is not None), None)


async def scraped(metrics: DepthMetrics) -> dict[str, float]:
    """The samples as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(metrics)
    lines = (await exposition(registry)).decode().splitlines()
    return {
        name: float(value) for line in lines if line[0] != "#" for name, _, value in [line.rpartition(" ")]
    }


async def test_one_monitor_exports_and_another_takes_over_when_it_ends(monitors: list[NatsMonitor]) -> None:
    first = await eventually(lambda: leader(monitors))
    (second,) = [each for each in monitors if each is not first]
    assert not second.is_leader
    assert await scraped(second.metrics) == {}
    await first.stop()
    assert await scraped(first.metrics) == {}
    assert await eventually(lambda: leader(monitors)) is second


@pytest.mark.parametrize("failure", [BusUnavailable("away"), ValueError("a defect")])
async def test_an_old_reading_is_not_exported_while_readings_fail(
    monitors: list[NatsMonitor], monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    first = await eventually(lambda: leader(monitors))
    failed = READINGS_FAILED._value.get()

    async def fails(bus: Bus, *, max_ages: int) -> ClusterDepth:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(monitor_module, "read_depth", fails)
        await eventually(lambda: first.metrics.depth is None)
        assert READINGS_FAILED._value.get() >= failed + STALE_READINGS
        assert MONITOR_LEADER._value.get() == 0
    await eventually(lambda: first.metrics.depth)
    assert MONITOR_LEADER._value.get() == 1


async def test_the_metrics_agree_with_what_was_put_into_a_queue(
    bus: Bus, monitors: list[NatsMonitor]
) -> None:
    for _ in range(3):
        await enqueue(bus, RunQueue(Priority.BATCH, "debate").subject, b"{}", {})
    found = await eventually(lambda: leader(monitors))
    await eventually(lambda: found.metrics.depth.waiting("RUNS") == 3)

    async def counted() -> bool:
        return (await scraped(found.metrics))['orchestra_stream_messages{stream="RUNS"}'] == 3

    await eventually(counted)  # streams are read beside their queues
    samples = await scraped(found.metrics)
    assert samples['orchestra_queue_waiting{priority="batch",queue="RUNS"}'] == 3
    assert samples['orchestra_queue_waiting{priority="interactive",queue="RUNS"}'] == 0
    assert samples['orchestra_queue_in_progress{priority="batch",queue="RUNS"}'] == 0
    assert 0 < samples['orchestra_queue_oldest_age_seconds{priority="batch",queue="RUNS"}'] < 60
    assert samples['orchestra_stream_messages{stream="RUNS"}'] == 3
    assert samples['orchestra_stream_limit_bytes{stream="RUNS"}'] == 512 * 2**20
    assert samples['orchestra_stream_used_ratio{full="refuses",stream="RUNS"}'] == 3 / 20_000
    assert samples['orchestra_consumer_ack_pending_limit{priority="batch",queue="RUNS"}'] == 1_000


async def test_a_model_that_the_cluster_knows_has_its_own_figures(
    bus: Bus, monitors: list[NatsMonitor]
) -> None:
    model = MODELS.of("known/model")
    for priority in (Priority.BATCH, Priority.INTERACTIVE):
        await enqueue(bus, GenerationQueue(priority, "known/model").subject, b"{}", {})
    found = await eventually(lambda: leader(monitors))
    await eventually(lambda: found.metrics.depth.waiting("GENERATIONS") == 2)
    samples = await scraped(found.metrics)
    assert samples[f'orchestra_queue_model_waiting{{model="{model}"}}'] == 2
    assert 0 < samples[f'orchestra_queue_model_oldest_age_seconds{{model="{model}"}}'] < 60


async def test_junk_on_the_queues_adds_no_series(bus: Bus, monitors: list[NatsMonitor]) -> None:
    found = await eventually(lambda: leader(monitors))
    before = (await scraped(found.metrics)).keys() | {
        'orchestra_queue_model_waiting{model="other"}',
        'orchestra_queue_model_oldest_age_seconds{model="other"}',
    }
    for number in range(50):
        await bus.publish(f"generations.batch.junk{number}", b"{}")
        await bus.publish(f"generations.p{number}.junk", b"{}")
        await bus.publish(f"runs.p{number}.junk", b"{}")
    await eventually(lambda: found.metrics.depth.waiting("GENERATIONS") >= 50)
    assert (await scraped(found.metrics)).keys() == before


async def test_a_stream_near_its_limit_is_recorded_once(
    bus: Bus, monitors: list[NatsMonitor], events: list[LogEvent]
) -> None:
    declared = shipped_declaration().stream("WEBHOOKS").config(replicas=1)
    await api(bus, "STREAM.UPDATE.WEBHOOKS", declared | {"max_bytes": 100_000})
    for _ in range(9):
        await enqueue(bus, "webhooks.x", b"x" * 9_000, {})
    await eventually(lambda: events)
    found = await eventually(lambda: leader(monitors))
    read = found.metrics.depth
    await eventually(lambda: found.metrics.depth is not read)
    assert [(event.name, event.level, event.data["name"]) for event in events] == [
        ("nats.near_limit", LogLevel.WARNING, "stream WEBHOOKS")
    ]
    await apply(bus, shipped_declaration())


async def given_up(bus: Bus) -> None:
    """One message is terminated; another is returned until its consumer delivers it no more."""
    name = RunQueue.consumer(Priority.BATCH)
    declared = shipped_declaration().stream("RUNS").consumer(name)
    assert declared is not None
    config = declared.model_copy(update={"max_deliver": 2}).config()
    await api(bus, f"CONSUMER.CREATE.RUNS.{name}", {"stream_name": "RUNS", "config": config})
    deliveries: list[Delivery] = []
    puller = Puller(bus, "RUNS", name, deliveries.append)
    await puller.start()

    async def delivered(count: int) -> Delivery:
        puller.request(1)
        await eventually(lambda: len(deliveries) == count)
        return deliveries[-1]

    await enqueue(bus, RunQueue(Priority.BATCH, "x").subject, b"{}", {})
    await (await delivered(1)).terminate("no such pattern")
    await enqueue(bus, RunQueue(Priority.BATCH, "x").subject, b"{}", {})
    await (await delivered(2)).nak()
    await (await delivered(3)).nak()
    before = counted("max_deliveries")
    puller.request(1)
    await eventually(lambda: counted("max_deliveries") > before)
    await puller.stop()
    await apply(bus, shipped_declaration())


async def test_an_advisory_is_counted_and_recorded_once_with_two_listeners(
    nats: RunningNats, bus: Bus, events: list[LogEvent]
) -> None:
    buses = [await Bus.connect(BusSettings(url=nats.url), name=name) for name in ("one", "two")]
    listeners = [AdvisoryListener(each, events_per_minute=10) for each in buses]
    for each in listeners:
        await each.start()
    for other in buses:
        await other.flush()
    before = {kind: counted(kind) for kind in ("max_deliveries", "msg_naked", "msg_terminated")}
    await given_up(bus)
    await eventually(lambda: len(events) == 4)
    await asyncio.gather(*(other.flush() for other in buses))
    more = {kind: counted(kind) - count for kind, count in before.items()}
    assert more == {"max_deliveries": 1, "msg_naked": 2, "msg_terminated": 1}
    found = {event.name: event for event in events}
    assert found["nats.max_deliveries"].level is LogLevel.ERROR
    assert found["nats.max_deliveries"].data["deliveries"] == 2
    assert found["nats.msg_terminated"].data["reason"] == "no such pattern"
    for listener, other in zip(listeners, buses, strict=True):
        await listener.stop()
        await other.close()


async def test_a_flood_of_advisories_is_counted_and_recorded_within_the_limit(
    bus: Bus, events: list[LogEvent]
) -> None:
    listener = AdvisoryListener(bus, events_per_minute=5)
    await listener.start()
    before = counted("msg_naked")
    for _ in range(50):
        await bus.publish("$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED.RUNS.c", b'{"stream": "RUNS"}')
    await eventually(lambda: counted("msg_naked") == before + 50)
    assert len(events) <= 10  # two minutes may be concerned
    await listener.stop()


async def test_what_is_no_advisory_is_counted_and_not_recorded(bus: Bus, events: list[LogEvent]) -> None:
    listener = AdvisoryListener(bus, events_per_minute=100)
    await listener.start()
    before = counted("msg_terminated")
    bodies = (b"", b"{", b"[]", b'{"stream": 3}', b'{"stream": "%s"}' % (b"x" * 20_000))
    for body in bodies:
        await bus.publish("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.RUNS.c", body)
    await eventually(lambda: counted("msg_terminated") == before + len(bodies))
    assert events == []
    await listener.stop()


def counted(kind: str) -> float:
    return REGISTRY.get_sample_value("orchestra_nats_advisories_total", {"kind": kind}) or 0.0
