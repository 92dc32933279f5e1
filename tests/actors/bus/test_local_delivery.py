"""What stays within a process skips the server, and otherwise behaves the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.bus.bus import Bus, BusSettings, Message
from orchestration.errors import BusUnavailable, NoResponders
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats


@pytest.fixture(params=[True, False], ids=["local", "by the server"])
async def either(request: pytest.FixtureRequest, nats_server: RunningNats) -> AsyncIterator[Bus]:
    """A bus that hands over locally, and one that does not."""
    settings = BusSettings(url=nats_server.url, local_delivery=request.param)
    bus = await Bus.connect(settings, name="test")
    yield bus
    await bus.close()


async def test_messages_to_an_exclusive_subject_come_in_order_with_headers_and_reply(either: Bus) -> None:
    got: list[Message] = []
    subscription = await either.subscribe("own.one.generate", got.append, exclusive=True)
    await either.flush()
    for number in range(100):
        either.post("own.one.generate", str(number).encode(), reply="somewhere", headers={"A": "b"})
    await eventually(lambda: len(got) == 100)
    assert [message.data for message in got] == [str(number).encode() for number in range(100)]
    assert {(message.reply, message.header("A"), message.subject) for message in got} == {
        ("somewhere", "b", "own.one.generate")
    }
    await subscription.unsubscribe()


async def test_one_star_at_the_end_takes_one_token_and_no_more(either: Bus) -> None:
    got: list[str] = []
    await either.subscribe("own.two.*", lambda message: got.append(message.subject), exclusive=True)
    await either.flush()
    either.post("own.two.a")
    either.post("own.two.a.b")
    either.post("own.two")
    either.post("own.two.c")
    await eventually(lambda: "own.two.c" in got)
    assert got == ["own.two.a", "own.two.c"]


async def test_a_request_after_the_listener_left_fails_at_once(either: Bus) -> None:
    def answer(message: Message) -> None:
        either.post(message.reply, b"here")

    subscription = await either.subscribe("own.three", answer, exclusive=True)
    assert (await either.request("own.three")).data == b"here"
    await subscription.drain()
    with pytest.raises(NoResponders):
        await either.request("own.three")


async def test_others_reach_an_exclusive_subject_through_the_server(either: Bus, bus: Bus) -> None:
    got: list[bytes] = []
    await either.subscribe("own.four", lambda message: got.append(message.data), exclusive=True)
    await either.flush()
    bus.post("own.four", b"from afar")
    await eventually(lambda: got == [b"from afar"])


async def test_a_handler_that_fails_is_called_again(either: Bus) -> None:
    got: list[bytes] = []

    def handler(message: Message) -> None:
        got.append(message.data)
        if message.data == b"bad":
            raise ValueError("no")

    await either.subscribe("own.five", handler, exclusive=True)
    await either.flush()
    either.post("own.five", b"bad")
    either.post("own.five", b"good")
    await eventually(lambda: got == [b"bad", b"good"])


async def test_nothing_is_handed_over_while_nats_is_away(own_nats: RunningNats) -> None:
    bus = await Bus.connect(BusSettings(url=own_nats.url, reconnect_wait_s=0.05), name="test")
    await bus.subscribe("own.six", lambda message: None, exclusive=True)
    own_nats.kill()
    await eventually(lambda: not bus.connected)
    with pytest.raises(BusUnavailable):
        bus.post("own.six")
    await bus.close()


async def test_a_publisher_that_never_pauses_lets_the_handler_run(either: Bus) -> None:
    got: list[int] = []
    await either.subscribe("own.seven", lambda message: got.append(len(message.data)), exclusive=True)
    await either.flush()

    async def flood() -> None:
        while True:
            await either.publish("own.seven", bytes(10_000))

    flooding = asyncio.ensure_future(flood())
    await eventually(lambda: len(got) > 100)
    flooding.cancel()
