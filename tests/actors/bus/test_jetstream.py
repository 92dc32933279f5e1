from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from actors.bus.bus import Bus, BusSettings, Message
from actors.bus.jetstream import Delivery, Puller, enqueue
from orchestration.errors import BusUnavailable, QueueFull
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import api, declare_queue, stored_in
from tests.fixtures.nats import RunningNats


@pytest.fixture
async def queue(bus: Bus) -> AsyncIterator[str]:
    name = f"q{uuid4().hex[:8]}"
    await declare_queue(bus, name)
    yield name
    await api(bus, f"STREAM.DELETE.{name}")


async def fill(bus: Bus, queue: str, number: int) -> None:
    for index in range(number):
        await enqueue(bus, f"{queue}.x", str(index).encode(), {})


async def test_a_full_queue_refuses_and_says_when_to_come_back(bus: Bus) -> None:
    name = f"q{uuid4().hex[:8]}"
    await declare_queue(bus, name, limit=2)
    await fill(bus, name, 2)
    with pytest.raises(QueueFull, match=f"{name}.x is full") as refused:
        await enqueue(bus, f"{name}.x", b"", {})
    assert refused.value.retry_after_s == 1
    await enqueue(bus, f"{name}.other", b"", {})
    await api(bus, f"STREAM.DELETE.{name}")


async def test_a_missing_queue_is_reported_as_undeclared(bus: Bus) -> None:
    with pytest.raises(BusUnavailable, match="declared"):
        await enqueue(bus, "undeclared.x", b"", {})


async def test_no_more_is_delivered_than_was_wanted(bus: Bus, queue: str) -> None:
    got: list[Delivery] = []
    puller = Puller(bus, queue, "c", got.append)
    await puller.start()
    await fill(bus, queue, 50)
    puller.request(5)
    await eventually(lambda: len(got) == 5)
    assert (puller.outstanding, puller.room) == (0, 0)
    await bus.flush()
    assert len(got) == 5
    puller.request(45)
    await eventually(lambda: len(got) == 50)
    assert [delivery.message.data for delivery in got] == [str(n).encode() for n in range(50)]
    await puller.stop()


async def test_what_is_acknowledged_as_it_comes_takes_no_room_and_hundreds_go_in_few_requests(
    bus: Bus, queue: str
) -> None:
    asked: list[bytes] = []
    await bus.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{queue}.c", lambda message: asked.append(message.data))
    got: list[bytes] = []

    def drop_all_but_the_last(delivery: Delivery) -> None:
        got.append(delivery.message.data)
        if delivery.message.data != b"299":
            delivery.settle(b"+ACK")

    puller = Puller(bus, queue, "c", drop_all_but_the_last)
    await puller.start()
    await fill(bus, queue, 300)
    puller.request(1)
    await eventually(lambda: b"299" in got)
    assert len(got) == 300
    assert len(asked) < 30
    assert puller.room == 0
    await puller.stop()


async def test_wanting_the_same_again_asks_for_nothing_more(bus: Bus, queue: str) -> None:
    got: list[Delivery] = []
    puller = Puller(bus, queue, "c", got.append)
    await puller.start()
    for _ in range(20):
        puller.request(4)
    await fill(bus, queue, 20)
    await eventually(lambda: len(got) == 4)
    await bus.flush()
    assert len(got) == 4
    await puller.stop()


async def test_a_pull_request_that_ends_is_repeated_for_the_room_that_is_left(bus: Bus, queue: str) -> None:
    asked: list[bytes] = []
    await bus.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{queue}.c", lambda message: asked.append(message.data))
    got: list[Delivery] = []
    puller = Puller(bus, queue, "c", got.append, expires_s=0.2)
    await puller.start()
    puller.request(8)
    await fill(bus, queue, 3)
    await eventually(lambda: len(asked) >= 3)
    assert asked[0].startswith(b'{"batch":8,')
    assert all(again.startswith(b'{"batch":5,') for again in asked[1:])
    await fill(bus, queue, 10)
    await eventually(lambda: len(got) == 8)
    await puller.stop()


async def test_an_acknowledged_message_is_gone_and_a_returned_one_comes_again(bus: Bus, queue: str) -> None:
    got: list[Delivery] = []
    puller = Puller(bus, queue, "c", got.append)
    await puller.start()
    await fill(bus, queue, 1)
    puller.request(2)
    await eventually(lambda: len(got) == 1)
    assert got[0].attempt == 1
    await got[0].nak()
    await eventually(lambda: len(got) == 2)
    assert got[1].attempt == 2
    await got[1].ack()
    await bus.flush()
    assert await stored_in(bus, queue) == 0
    await puller.stop()


async def test_a_returned_message_waits_for_its_delay(bus: Bus, queue: str) -> None:
    loop = asyncio.get_running_loop()
    got: list[tuple[float, Delivery]] = []
    puller = Puller(bus, queue, "c", lambda delivery: got.append((loop.time(), delivery)))
    await puller.start()
    await fill(bus, queue, 1)
    puller.request(2)
    await eventually(lambda: len(got) == 1)
    await got[0][1].nak(0.3)
    await eventually(lambda: len(got) == 2)
    assert got[1][0] - got[0][0] >= 0.29
    await puller.stop()


async def test_a_terminated_message_never_comes_again(bus: Bus, queue: str) -> None:
    got: list[Delivery] = []
    told: list[Message] = []
    await bus.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>", told.append)
    puller = Puller(bus, queue, "c", got.append)
    await puller.start()
    await fill(bus, queue, 1)
    puller.request(2)
    await eventually(lambda: len(got) == 1)
    await got[0].terminate("it is\nbroken")
    await eventually(lambda: told)
    assert b"it is broken" in told[0].data
    assert await stored_in(bus, queue) == 0
    await puller.stop()


async def test_progress_keeps_a_message_from_being_delivered_again(bus: Bus) -> None:
    name = f"q{uuid4().hex[:8]}"
    await declare_queue(bus, name, ack_wait_s=0.5)
    got: list[Delivery] = []
    puller = Puller(bus, name, "c", got.append)
    await puller.start()
    await fill(bus, name, 1)
    puller.request(2)
    await eventually(lambda: got)
    loop = asyncio.get_running_loop()
    until = loop.time() + 1.5
    while loop.time() < until:
        await got[0].in_progress()
        await asyncio.sleep(0.1)
    assert len(got) == 1
    await eventually(lambda: len(got) == 2)  # and without progress it is
    await puller.stop()
    await api(bus, f"STREAM.DELETE.{name}")


async def test_what_a_stopped_puller_still_gets_is_given_back_at_once(bus: Bus, queue: str) -> None:
    first: list[Delivery] = []
    second: list[Delivery] = []
    one, other = Puller(bus, queue, "c", first.append), Puller(bus, queue, "c", second.append)
    await one.start()
    one.request(100)
    sending = [asyncio.ensure_future(enqueue(bus, f"{queue}.x", b"", {})) for _ in range(100)]
    await eventually(lambda: first)
    await one.stop()
    await asyncio.gather(*sending)
    await other.start()
    other.request(100)
    await eventually(lambda: len(first) + len(second) == 100)
    await other.stop()


async def test_two_pullers_of_one_consumer_on_one_bus_share(bus: Bus, queue: str) -> None:
    first: list[bytes] = []
    second: list[bytes] = []
    pullers = [
        Puller(bus, queue, "c", lambda delivery: first.append(delivery.message.data)),
        Puller(bus, queue, "c", lambda delivery: second.append(delivery.message.data)),
    ]
    for puller in pullers:
        await puller.start()
        puller.request(10)
    await fill(bus, queue, 20)
    await eventually(lambda: len(first) + len(second) == 20)
    assert sorted(map(int, first + second)) == list(range(20))
    for puller in pullers:
        await puller.stop()


async def test_a_consumer_that_is_deleted_is_marked_as_missing(bus: Bus, queue: str) -> None:
    got: list[Delivery] = []
    puller = Puller(bus, queue, "c", got.append)
    await puller.start()
    puller.request(3)
    await fill(bus, queue, 1)
    await eventually(lambda: len(got) == 1)  # so the consumer has the request, and owes two more
    await api(bus, f"CONSUMER.DELETE.{queue}.c")
    await eventually(lambda: puller.missing)
    await declare_queue(bus, queue)
    await fill(bus, queue, 2)
    await eventually(lambda: len(got) >= 3)
    assert not puller.missing
    await puller.stop()


async def test_pulling_goes_on_after_the_server_was_killed(own_nats: RunningNats) -> None:
    bus = await Bus.connect(BusSettings(url=own_nats.url, reconnect_wait_s=0.05), name="test")
    from actors.bus.declarations import shipped_declaration
    from actors.bus.provision import apply, ensure_consumer

    await apply(bus, shipped_declaration())
    subject = "generations.batch.m"
    await ensure_consumer(bus, "GENERATIONS", "generations-batch-m", subject)
    got: list[Delivery] = []
    puller = Puller(bus, "GENERATIONS", "generations-batch-m", got.append)
    await puller.start()
    puller.request(10)
    await enqueue(bus, subject, b"before", {})
    await eventually(lambda: len(got) == 1)
    own_nats.kill()
    await eventually(lambda: not bus.connected)
    await asyncio.to_thread(own_nats.restart)
    await eventually(lambda: bus.connected)
    await enqueue(bus, subject, b"after", {}, timeout=30)
    await eventually(lambda: b"after" in [delivery.message.data for delivery in got])
    await puller.stop()
    await bus.close()


@pytest.mark.parametrize(
    ("reply", "attempt"),
    [
        ("$JS.ACK.STREAM.consumer.3.7.8.1700000000.0", 3),
        ("$JS.ACK.hub.ACCOUNT.STREAM.consumer.4.7.8.1700000000.0", 4),
        ("$JS.ACK.hub.ACCOUNT.STREAM.consumer.5.7.8.1700000000.0.random", 5),
    ],
)
async def test_attempt_and_sequence_are_read_from_every_form_of_the_reply(
    bus: Bus, reply: str, attempt: int
) -> None:
    delivery = Delivery(bus, Message("s", reply, b"", None))
    assert (delivery.attempt, delivery.sequence) == (attempt, 7)
