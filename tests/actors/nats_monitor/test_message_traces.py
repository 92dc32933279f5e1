"""NATS servers tell what they did with the messages of traced requests, and that becomes spans."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from secrets import token_hex

import pytest
from prometheus_client import REGISTRY

from actors.bus.bus import Bus, BusSettings, Message
from actors.bus.declarations import shipped_declaration
from actors.bus.jetstream import Delivery, Puller, enqueue
from actors.bus.message_traces import DESTINATION, MessageTracer
from actors.bus.provision import apply
from actors.bus.subjects import MessageTraceAddress, NodeAddress, RunQueue
from actors.nats_monitor.message_records import MAX_RECORD_BYTES, MessageSpan
from actors.nats_monitor.message_trace_listener import MessageTraceListener
from actors.nats_server import EmbeddedNats, NatsServerSettings
from orchestration.errors import QueueFull
from orchestration.priority import Priority
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import api
from tests.fixtures.machines import free_ports
from tests.fixtures.nats import RunningNats
from tests.fixtures.restricted_nats import configured_nats, restricted_nats

SUBJECT = NodeAddress("there").generate
TOLD = MessageTraceAddress("tests").subject
UNKNOWN = {"00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
"""Parents of which the process has no span."""


def traceparent(flags: str = "01") -> str:
    return f"00-{token_hex(16)}-{token_hex(8)}-{flags}"


class Exported:
    """A listener, and the spans that it makes, with their parents."""

    def __init__(self, bus: Bus, *, per_second: int = 1000) -> None:
        self.spans: list[tuple[MessageSpan, str]] = []
        self.listener = MessageTraceListener(bus, TOLD, self.take, per_second=per_second)

    def take(self, span: MessageSpan, parent: str) -> bool:
        self.spans.append((span, parent))
        return parent not in UNKNOWN

    async def of(self, parent: str, count: int) -> list[MessageSpan]:
        """The spans below `parent`, once there are `count`, in the order of their beginnings."""
        await eventually(lambda: len(self._below(parent)) >= count)
        return sorted(self._below(parent), key=lambda span: span.began_ns)

    def _below(self, parent: str) -> list[MessageSpan]:
        return [span for span, below in self.spans if below == parent]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Bus]:
    bus = await Bus.connect(BusSettings(url=url), name="test")
    bus.message_tracer = MessageTracer(TOLD, lambda parent: None, per_second=1000)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def exporting(bus: Bus, *, per_second: int = 1000) -> AsyncIterator[Exported]:
    exported = Exported(bus, per_second=per_second)
    await exported.listener.start()
    await bus.flush()
    yield exported
    await exported.listener.stop()


async def answer_on(bus: Bus, subject: str) -> None:
    """Answer requests on `subject`."""

    async def answer(message: Message) -> None:
        await bus.publish(message.reply, b"done")

    await bus.subscribe(subject, answer)
    await bus.flush()


async def interest(bus: Bus, subject: str) -> None:
    """Wait until a request of `bus` finds a listener, possibly at another server."""

    async def found() -> bool:
        try:
            await bus.request(subject, timeout=1)
        except Exception:  # noqa: BLE001 - not yet
            return False
        return True

    await eventually(found)


def records(outcome: str) -> float:
    return REGISTRY.get_sample_value("orchestra_nats_trace_records_total", {"outcome": outcome}) or 0.0


async def test_a_request_over_two_servers_of_a_cluster_has_a_span_of_each(tmp_path: Path) -> None:
    ports = free_ports(2)
    async with AsyncExitStack() as stack:
        urls = []
        for port, other in (ports, ports[::-1]):
            settings = NatsServerSettings(
                data=tmp_path / str(port), name=f"s{port}", cluster_port=port, join=(f"127.0.0.1:{other}",)
            )
            urls.append((await stack.enter_async_context(EmbeddedNats(settings))).url)
        asking, answering = [await stack.enter_async_context(connected(url)) for url in urls]
        exported = await stack.enter_async_context(exporting(answering))
        await answer_on(answering, SUBJECT)
        await interest(asking, SUBJECT)
        parent = traceparent()
        await asking.request(SUBJECT, b"x", headers={"traceparent": parent})
        first, second = await exported.of(parent, 2)
        assert {first.name, second.name} == {"route node.{node}.generate"}
        assert [first.attributes["nats.server.name"], second.attributes["nats.server.name"]] == [
            f"s{port}" for port in ports
        ]
        assert [first.attributes.get("nats.hop"), second.attributes["nats.hop"]] == [None, "1"]
        assert first.attributes["nats.forwarded_to"] == [f"s{ports[1]}"]
        assert second.attributes["nats.receivers"] == ["test"]
        assert first.began_ns <= second.began_ns <= second.ended_ns
        assert (first.error, second.error) == ("", "")


async def test_a_request_over_a_leaf_node_has_a_span_of_both_servers(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with AsyncExitStack() as stack:
        hub_text = f'server_name: hub\nleafnodes {{ listen: "127.0.0.1:{port}" }}'
        leaf_text = (
            f'server_name: leaf\nleafnodes {{ remotes: [ {{ url: "nats-leaf://127.0.0.1:{port}" }} ] }}'
        )
        hub_at = stack.enter_context(configured_nats(tmp_path / "hub", hub_text))
        leaf_at = stack.enter_context(configured_nats(tmp_path / "leaf", leaf_text))
        hub = await stack.enter_async_context(connected(f"nats://{hub_at}"))
        leaf = await stack.enter_async_context(connected(f"nats://{leaf_at}"))
        exported = await stack.enter_async_context(exporting(hub))
        await answer_on(hub, SUBJECT)
        await interest(leaf, SUBJECT)
        parent = traceparent()
        await leaf.request(SUBJECT, b"x", headers={"traceparent": parent})
        servers = [span.attributes["nats.server.name"] for span in await exported.of(parent, 2)]
        assert servers == ["leaf", "hub"]


@pytest.fixture
async def bus(own_nats: RunningNats) -> AsyncIterator[Bus]:
    async with connected(own_nats.url) as bus:
        await apply(bus, shipped_declaration())
        yield bus


async def test_a_queued_message_is_stored_in_its_span_and_not_traced_again_when_it_is_delivered(
    bus: Bus,
) -> None:
    async with exporting(bus) as exported:
        parent, later = traceparent(), traceparent()
        await enqueue(bus, RunQueue(Priority.BATCH, "debate").subject, b"{}", {"traceparent": parent})
        (span,) = await exported.of(parent, 1)
        assert span.name == "route runs.{priority}.{pattern}"
        (stored,) = span.children
        assert stored.name == "store RUNS"
        assert span.began_ns <= stored.began_ns <= stored.ended_ns <= span.ended_ns
        deliveries: list[Delivery] = []
        puller = Puller(bus, "RUNS", RunQueue.consumer(Priority.BATCH), deliveries.append)
        await puller.start()
        puller.request(1)
        await eventually(lambda: deliveries)
        await bus.publish("nobody.listens", headers={"traceparent": later})
        await exported.of(later, 1)
        assert len(exported.spans) == 2
        await puller.stop()


async def test_a_message_that_nobody_takes_is_an_error_without_its_subject(bus: Bus) -> None:
    async with exporting(bus) as exported:
        parent = traceparent()
        await bus.publish("secret.names.of.nobody", b"content", headers={"traceparent": parent})
        (span,) = await exported.of(parent, 1)
        assert span.error == "no_interest"
        assert span.name == "route other"
        assert "secret" not in str(span.attributes)


async def test_a_message_that_its_stream_refuses_is_an_error_of_its_store(bus: Bus) -> None:
    async with exporting(bus) as exported:
        parent = traceparent()
        declared = shipped_declaration().stream("RUNS").config(replicas=1)
        await api(bus, "STREAM.UPDATE.RUNS", declared | {"max_msgs_per_subject": 1})
        subject = RunQueue(Priority.BATCH, "debate").subject
        await enqueue(bus, subject, b"{}", {})
        with pytest.raises(QueueFull):
            await enqueue(bus, subject, b"{}", {"traceparent": parent})
        (span,) = await exported.of(parent, 1)
        assert span.error == "store_failed"
        assert [child.error for child in span.children] == ["store_failed"]


async def test_a_message_that_its_sender_may_not_publish_is_an_error_of_its_server(tmp_path: Path) -> None:
    with restricted_nats(tmp_path, deny="secret.>") as url:
        async with connected(url) as bus, exporting(bus) as exported:
            parent = traceparent()
            await bus.publish("secret.work", b"x", headers={"traceparent": parent})
            (span,) = await exported.of(parent, 1)
            assert span.error == "permission_denied"


async def test_only_messages_of_sampled_traces_are_traced(bus: Bus) -> None:
    async with exporting(bus) as exported:
        await answer_on(bus, SUBJECT)
        not_traced = [traceparent("00"), "00-0-0-01", "x" * 55, "00-" + "0" * 32 + "-" + "1" * 16 + "-01"]
        for parent in not_traced:
            await bus.request(SUBJECT, headers={"traceparent": parent})
        await bus.request(SUBJECT)
        last = traceparent()
        await bus.request(SUBJECT, headers={"traceparent": last})
        await exported.of(last, 1)
        assert len(exported.spans) == 1


async def test_beyond_the_limit_messages_pass_untraced_and_are_counted(bus: Bus) -> None:
    marked: list[str] = []
    tracer = MessageTracer(TOLD, marked.append, per_second=0)
    before = REGISTRY.get_sample_value("orchestra_nats_traces_skipped_total") or 0.0
    headers = {"traceparent": traceparent()}
    assert tracer.marked(headers) is headers
    assert marked == []
    assert REGISTRY.get_sample_value("orchestra_nats_traces_skipped_total") == before + 1


async def test_what_is_no_record_makes_no_span(bus: Bus) -> None:
    """Any process with access to NATS can publish where records are expected."""
    parent = traceparent()
    event = {"type": "in", "ts": "2026-11-30T18:07:17.614842982Z", "subj": "a"}
    record = {
        "server": {"name": "s"},
        "request": {"header": {"traceparent": [parent]}, "msgsize": 1},
        "events": [event],
    }
    header = record["request"]
    bad = [
        b"",
        b"[]",
        b"\xff\xfe",
        b"{" * 100_000,
        b" " * (MAX_RECORD_BYTES + 1),
        json.dumps(record | {"events": []}).encode(),
        json.dumps(record | {"events": [event] * 300}).encode(),
        json.dumps(record | {"events": [event | {"ts": "yesterday"}]}).encode(),
        json.dumps(record | {"events": [event | {"ts": "2026-11-30T18:07:17"}]}).encode(),
        json.dumps(record | {"events": [event | {"subj": "x" * 5_000}]}).encode(),
        json.dumps(record | {"server": {"name": "x" * 300}}).encode(),
        json.dumps(record | {"request": {"header": {}}}).encode(),
        json.dumps(record | {"request": {"header": {"traceparent": ["00-x-y-01"]}}}).encode(),
        json.dumps(record | {"request": {"header": {"traceparent": [traceparent("00")]}}}).encode(),
        json.dumps(record | {"request": header | {"msgsize": -1}}).encode(),  # type: ignore[operator]
    ]
    async with exporting(bus) as exported:
        invalid = records("invalid")
        for body in bad:
            await bus.publish(TOLD, body)
        await bus.publish(TOLD, json.dumps(record).encode())
        await exported.of(parent, 1)
        await eventually(lambda: records("invalid") == invalid + len(bad))
        assert len(exported.spans) == 1


async def test_a_record_about_no_span_of_this_process_is_counted(bus: Bus) -> None:
    async with exporting(bus):
        before = records("unknown")
        (parent,) = UNKNOWN
        await bus.publish("nobody", headers={"traceparent": parent})
        await eventually(lambda: records("unknown") == before + 1)


async def test_records_beyond_the_limit_are_counted_and_dropped(bus: Bus) -> None:
    async with exporting(bus, per_second=0):
        before = records("limit")
        await bus.publish(TOLD, b"{}")
        await eventually(lambda: records("limit") == before + 1)


async def test_a_user_who_may_not_publish_there_cannot_name_the_destination(tmp_path: Path) -> None:
    """The server checks the right to publish to the destination, and drops the message otherwise."""
    with restricted_nats(tmp_path, deny="trace.>") as url:
        async with connected(url) as bus, exporting(bus) as exported:
            received: list[Message] = []
            await bus.subscribe("work", received.append)
            denied = REGISTRY.get_sample_value("orchestra_bus_denied_publishes_total") or 0.0
            named = {DESTINATION: TOLD, "traceparent": traceparent("00")}
            await bus.publish("work", b"x", headers=named)
            await eventually(
                lambda: REGISTRY.get_sample_value("orchestra_bus_denied_publishes_total") == denied + 1
            )
            await bus.flush()
            assert received == []
            assert exported.spans == []
