from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import nats
import nats.micro
import pytest
from nats.aio.client import Client
from nats.micro.request import Request

from actors.bus.bus import Bus, Message
from actors.runtime.actor import Actor
from actors.runtime.actor_host import ActorRef
from actors.runtime.envelope import Envelope
from actors.runtime.service import ERROR, ERROR_CODE, Endpoint, Service, ServiceInfo, decode_model
from actors.runtime.system import ActorSystem
from orchestration.errors import DeadlineExceeded, NoResponders
from tests.actors.runtime.greeter import Count, Crash, Gate, Greet, Greeter, Wait, WideGreeter
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats


class Served:
    """A service around a greeter, under subjects of its own."""

    def __init__(self, bus: Bus, ref: ActorRef, gate: Gate, name: str) -> None:
        self.bus = bus
        self.ref = ref
        self.gate = gate
        self.name = name
        self.service = Service(bus, ServiceInfo(name=name, version="1.2.3", metadata={"a": "b"}))

    async def endpoint(self, kind: type[Any], **options: Any) -> str:
        subject = f"{self.name}.{kind.__name__.lower()}"
        given: dict[str, Any] = {"decode": decode_model(kind), "encode": _encode} | options
        await self.service.add(Endpoint(name=kind.__name__.lower(), subject=subject, ref=self.ref, **given))
        await self.bus.flush()
        return subject

    async def stats(self, client: Client, endpoint: str) -> dict[str, Any]:
        reply = await client.request(f"$SRV.STATS.{self.name}", timeout=30)
        (found,) = [each for each in json.loads(reply.data)["endpoints"] if each["name"] == endpoint]
        return dict(found)


def _encode(value: Any) -> bytes:
    return repr(value).encode() if isinstance(value, Envelope) else bytes(value.model_dump_json(), "utf8")


@pytest.fixture
async def client(nats_server: RunningNats) -> AsyncIterator[Client]:
    """nats-py's own client, as a stranger would use it."""
    async with await nats.connect(nats_server.url) as connected:
        yield connected


@pytest.fixture
async def served(bus: Bus, request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    gate = Gate()
    system = ActorSystem()
    ref = await system.spawn(WideGreeter, lambda: WideGreeter(gate))
    served = Served(bus, ref, gate, f"service-{abs(hash(request.node.name)):x}")
    await served.service.start()
    yield served
    await served.service.leave()
    gate.opened.set()
    await system.drain(1)
    assert not bus.reply_inbox.expected


async def collect(client: Client, subject: str, data: bytes) -> list[Any]:
    """Every message of a streamed answer, the empty one that ends it included."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subject, data, reply=inbox)
    found: list[Any] = []
    while not found or found[-1].data or found[-1].headers:
        found.append(await subscription.next_msg(timeout=30))
    await subscription.unsubscribe()
    return found


async def test_ping_info_and_stats_say_what_the_micro_protocol_says(served: Served, client: Client) -> None:
    await served.endpoint(Greet, queue="q", metadata={"c": "d"})
    for suffix in ("", f".{served.name}", f".{served.name}.{served.service.id}"):
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        await client.publish(f"$SRV.PING{suffix}", reply=inbox)
        pings = [json.loads((await answers.next_msg(timeout=30)).data)]
        assert {
            "type": "io.nats.micro.v1.ping_response",
            "name": served.name,
            "id": served.service.id,
            "version": "1.2.3",
            "metadata": {"a": "b"},
        } in pings
    info = json.loads((await client.request(f"$SRV.INFO.{served.name}", timeout=30)).data)
    assert info["type"] == "io.nats.micro.v1.info_response"
    assert info["description"] == ""
    assert info["endpoints"] == [
        {"name": "greet", "subject": f"{served.name}.greet", "queue_group": "q", "metadata": {"c": "d"}}
    ]
    stats = json.loads((await client.request(f"$SRV.STATS.{served.name}", timeout=30)).data)
    assert stats["type"] == "io.nats.micro.v1.stats_response"
    assert stats["started"].endswith("Z")


async def test_our_answers_have_every_field_that_the_reference_service_gives(
    served: Served, client: Client
) -> None:
    await served.endpoint(Greet)
    reference = await nats.micro.add_service(
        client, name=f"{served.name}-ref", version="1.0.0", description="d"
    )

    async def nothing(request: Request) -> None: ...

    await reference.add_endpoint(name="greet", handler=nothing, subject=f"{served.name}-ref.x", metadata={})
    for verb in ("PING", "INFO", "STATS"):
        ours, theirs = [
            json.loads((await client.request(f"$SRV.{verb}.{name}", timeout=30)).data)
            for name in (served.name, f"{served.name}-ref")
        ]
        assert theirs.keys() <= ours.keys() | {"data"}
        if "endpoints" in theirs:
            assert theirs["endpoints"][0].keys() <= ours["endpoints"][0].keys() | {"data"}
        shared = ours.keys() & theirs.keys()
        assert {key: type(ours[key]) for key in shared} == {key: type(theirs[key]) for key in shared}
    await reference.stop()


async def test_ten_slow_requests_run_at_once_and_are_counted(served: Served, client: Client) -> None:
    subject = await served.endpoint(Wait)
    asked = [asyncio.ensure_future(client.request(subject, b"{}", timeout=30)) for _ in range(10)]
    await eventually(lambda: served.gate.now == 10)
    served.gate.opened.set()
    await asyncio.gather(*asked)
    stats = await served.stats(client, "wait")
    assert (stats["num_requests"], stats["num_errors"]) == (10, 0)
    assert stats["processing_time"] > 0
    assert stats["average_processing_time"] == stats["processing_time"] // 10


async def test_bad_json_is_answered_with_the_field_at_fault(served: Served, client: Client) -> None:
    subject = await served.endpoint(Greet)
    reply = await client.request(subject, b'{"name": 3}', timeout=30)
    assert reply.headers is not None
    assert reply.headers[ERROR_CODE] == "400"
    assert reply.headers[ERROR].startswith("name: ")
    assert json.loads(reply.data)["param"] == "name"
    reply = await client.request(subject, b"{", timeout=30)
    assert reply.headers is not None
    assert reply.headers[ERROR].startswith("body: ")
    stats = await served.stats(client, "greet")
    assert (stats["num_requests"], stats["num_errors"]) == (2, 2)
    assert stats["last_error"].startswith("400:body")


async def test_a_crash_is_a_500_that_names_the_defect(served: Served, client: Client) -> None:
    subject = await served.endpoint(Crash, streams=False)
    reply = await client.request(subject, b"{}", timeout=30)
    assert reply.headers is not None
    assert reply.headers[ERROR_CODE] == "500"
    assert json.loads(reply.data)["code"] == "internal_error"


async def test_a_message_the_actor_has_no_handler_for_is_answered_too(served: Served, client: Client) -> None:
    subject = await served.endpoint(Greet, decode=lambda _: 17)
    reply = await client.request(subject, b"{}", timeout=30)
    assert reply.headers is not None
    assert reply.headers[ERROR_CODE] == "500"


async def test_an_answer_that_cannot_be_encoded_is_answered_too(served: Served, client: Client) -> None:
    def broken(_: Any) -> bytes:
        raise ValueError("no")

    subject = await served.endpoint(Greet, encode=broken)
    reply = await client.request(subject, b'{"name": "x"}', timeout=30)
    assert reply.headers is not None
    assert reply.headers[ERROR_CODE] == "500"
    assert served.ref.host.state == "running"


async def test_a_stream_is_one_message_a_value_and_an_empty_one(served: Served, client: Client) -> None:
    subject = await served.endpoint(Count, acknowledgement=b"ack")
    messages = await collect(client, subject, b'{"to": 3}')
    assert [message.data for message in messages] == [
        b"ack",
        b'{"text":"0"}',
        b'{"text":"1"}',
        b'{"text":"2"}',
        b"",
    ]


async def test_the_acknowledgement_comes_before_the_handler_says_anything(
    served: Served, client: Client
) -> None:
    class Patient(Actor):
        async def on_wait(self, message: Wait) -> AsyncIterator[Wait]:
            await served.gate.wait()
            yield message

    ref = await ActorSystem().spawn(Patient, Patient)
    subject = f"{served.name}.patient"
    await served.service.add(
        Endpoint(
            name="patient",
            subject=subject,
            ref=ref,
            decode=decode_model(Wait),
            acknowledgement=b"ack",
            streams=True,
        )
    )
    await served.bus.flush()
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    await client.publish(subject, b"{}", reply=inbox)
    assert (await answers.next_msg(timeout=30)).data == b"ack"
    assert not served.gate.opened.is_set()
    served.gate.opened.set()
    assert await ref.host.drain(5)


async def test_an_error_in_a_stream_is_followed_by_the_end(served: Served, client: Client) -> None:
    subject = await served.endpoint(Count)
    messages = await collect(client, subject, b'{"to": "many"}')
    assert [bool(message.data) for message in messages] == [True, False]
    assert messages[0].headers[ERROR_CODE] == "400"


async def test_an_actor_may_stream_one_answer_and_give_another_at_once(
    served: Served, client: Client
) -> None:
    subject = await served.endpoint(Greet)
    reply = await client.request(subject, b'{"name": "x"}', timeout=30)
    assert reply.data == b'{"text":"hello x"}'


async def test_a_caller_that_is_gone_ends_the_handler(served: Served, client: Client) -> None:
    subject = await served.endpoint(Count)
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    await client.publish(subject, b'{"to": 100000000}', reply=inbox)
    await answers.next_msg(timeout=30)
    await answers.unsubscribe()
    await eventually(lambda: served.ref.host.running == 0)
    stats = await served.stats(client, "count")
    assert stats["last_error"].startswith("499:")


async def test_the_deadline_travels_in_the_headers(served: Served, bus: Bus) -> None:
    subject = await served.endpoint(Wait)
    headers = Envelope.within(0.05, trace="00-aa-bb-00").headers()
    reply = await bus.request(subject, b"{}", headers=headers)
    assert reply.header(ERROR_CODE) == "504"
    assert served.gate.cancelled == 1
    served.gate.opened.set()
    headers = Envelope.within(5, trace="00-aa-bb-00", caller="you").headers()
    assert b"trace='00-aa-bb-00', caller='you'" in (await bus.request(subject, b"{}", headers=headers)).data


async def test_a_full_mailbox_is_a_429_that_says_when_to_come_back(served: Served, bus: Bus) -> None:
    subject = await served.endpoint(Wait)
    asked = [asyncio.ensure_future(bus.request(subject, b"{}", timeout=30)) for _ in range(64 + 8)]
    await eventually(lambda: served.ref.host.waiting == 8)
    reply = await bus.request(subject, b"{}")
    assert reply.header(ERROR_CODE) == "429"
    assert json.loads(reply.data)["retry_after_s"] == 1
    served.gate.opened.set()
    await asyncio.gather(*asked)


async def test_leaving_answers_requests_sent_before_and_none_after(served: Served, bus: Bus) -> None:
    subject = await served.endpoint(Greet)
    asked = [
        asyncio.ensure_future(bus.request(subject, Greet(name=str(n)).model_dump_json().encode()))
        for n in range(60)
    ]
    await asyncio.sleep(0)
    await served.service.leave()
    answers = await asyncio.gather(*asked)
    assert [answer.data for answer in answers] == [f'{{"text":"hello {n}"}}'.encode() for n in range(60)]
    with pytest.raises((NoResponders, DeadlineExceeded)):
        await bus.request(subject, b"{}", timeout=1)


async def test_an_unread_mailbox_of_verbs_costs_nothing(bus: Bus) -> None:
    answer: Callable[[Message], None] = lambda _: None  # noqa: E731
    subscription = await bus.subscribe("service.verb", answer)
    await bus.publish("service.verb")
    await subscription.drain()
    assert not len(bus.handlers)


async def test_a_service_of_one_actor_at_a_time_still_answers_stats(bus: Bus, client: Client) -> None:
    gate = Gate()
    ref = await ActorSystem().spawn(Greeter, lambda: Greeter(gate))
    served = Served(bus, ref, gate, "service-busy")
    await served.service.start()
    subject = await served.endpoint(Wait)
    asked = asyncio.ensure_future(bus.request(subject, b"{}", timeout=30))
    await eventually(lambda: gate.now == 1)
    assert (await served.stats(client, "wait"))["num_requests"] == 0
    gate.opened.set()
    await asked
    assert (await served.stats(client, "wait"))["num_requests"] == 1
    await served.service.leave()
