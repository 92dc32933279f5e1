from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from actors.bus.bus import Bus, BusSettings, Message
from actors.telemetry.telemetry import BUS_RECONNECTS
from orchestration.errors import BusUnavailable, DeadlineExceeded, NoResponders, PayloadTooLarge
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


async def connect(url: str, **settings: float) -> Bus:
    return await Bus.connect(
        BusSettings.model_validate({"url": url, "reconnect_wait_s": 0.05} | settings), name="test"
    )


async def echo(bus: Bus, subject: str) -> None:
    def answer(message: Message) -> None:
        bus.post(message.reply, message.data, headers=message.headers)

    await bus.subscribe(subject, answer)


async def flood(bus: Bus) -> None:
    """Publish more than the sockets hold."""
    while True:
        await bus.publish("bus.void", bytes(100_000))


async def test_a_request_is_answered_with_data_and_headers(bus: Bus) -> None:
    await echo(bus, "bus.echo")
    reply = await bus.request("bus.echo", b"data", headers={"Some-Header": "a value: of üñí"})
    assert (reply.data, reply.header("Some-Header")) == (b"data", "a value: of üñí")
    assert not bus.reply_inbox.expected
    assert not bus.reply_inbox.waiting


async def test_many_requests_at_once_get_their_own_answers(bus: Bus) -> None:
    await echo(bus, "bus.many")
    replies = await asyncio.gather(*(bus.request("bus.many", str(n).encode()) for n in range(500)))
    assert [reply.data for reply in replies] == [str(n).encode() for n in range(500)]
    assert not bus.reply_inbox.expected


async def test_a_request_without_a_listener_fails_at_once(bus: Bus) -> None:
    with pytest.raises(NoResponders, match=r"bus\.nobody"):
        await bus.request("bus.nobody", timeout=30)
    assert not bus.reply_inbox.expected


async def test_a_request_without_an_answer_ends_at_its_timeout(bus: Bus) -> None:
    await bus.subscribe("bus.silent", lambda _: None)
    with pytest.raises(DeadlineExceeded, match=r"bus\.silent within 0\.05 s"):
        await bus.request("bus.silent", timeout=0.05)
    assert not bus.reply_inbox.expected


async def test_a_cancelled_request_leaves_nothing_behind(bus: Bus) -> None:
    await bus.subscribe("bus.silent", lambda _: None)
    asking = asyncio.ensure_future(bus.request("bus.silent"))
    await eventually(lambda: bus.reply_inbox.waiting)
    asking.cancel()
    await asyncio.wait({asking})
    assert not bus.reply_inbox.expected
    assert not bus.reply_inbox.waiting


async def test_more_than_the_server_takes_is_refused_here(bus: Bus) -> None:
    with pytest.raises(PayloadTooLarge, match=str(bus.max_payload + 1)):
        await bus.publish("bus.big", bytes(bus.max_payload + 1))
    assert bus.connected


async def test_headers_count_as_payload_and_do_not_cost_the_connection(bus: Bus) -> None:
    headers = {"A": "b" * 100}
    for size in (bus.max_payload, bus.max_payload - 20):
        with pytest.raises(PayloadTooLarge, match="exceeds max_payload"):
            await bus.publish("too.large", b"x" * size, headers=headers)
    reconnects = BUS_RECONNECTS._value.get()
    await bus.publish("not.too.large", b"x" * (bus.max_payload - 200), headers=headers)
    await bus.flush()
    assert BUS_RECONNECTS._value.get() == reconnects


async def test_a_body_of_megabytes_arrives_whole(bus: Bus) -> None:
    await echo(bus, "bus.large")
    body = bytes(range(256)) * 16_384
    assert (await bus.request("bus.large", body)).data == body


@pytest.mark.parametrize("subject", ["", "two words", "line\r\nPUB other 0", "long." * 500])
async def test_what_cannot_be_a_subject_is_no_fault_of_nats(bus: Bus, subject: str) -> None:
    with pytest.raises(ValueError, match="cannot be a subject"):
        await bus.publish(subject)
    assert bus.connected


async def test_line_breaks_in_a_header_smuggle_nothing_in(bus: Bus) -> None:
    await echo(bus, "bus.headers")
    reply = await bus.request("bus.headers", headers={"Good": "one\r\nEvil: two"})
    assert reply.headers == {"Good": "one  Evil: two"}
    with pytest.raises(ValueError, match="name of a header"):
        await bus.publish("bus.headers", headers={"Bad\r\n": "x"})


async def test_coroutine_handlers_run_one_after_another(bus: Bus) -> None:
    log: list[str] = []

    async def slow(message: Message) -> None:
        log.append(f"begin {message.data.decode()}")
        await asyncio.sleep(0)
        log.append(f"end {message.data.decode()}")

    await bus.subscribe("bus.slow", slow)
    for number in range(2):
        await bus.publish("bus.slow", str(number).encode())
    await eventually(lambda: len(log) == 4)
    assert log == ["begin 0", "end 0", "begin 1", "end 1"]


async def test_a_handler_that_fails_is_logged_and_called_again(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bytes] = []

    def fails(message: Message) -> None:
        seen.append(message.data)
        raise RuntimeError("broken handler")

    await bus.subscribe("bus.broken", fails)
    await bus.publish("bus.broken", b"1")
    await bus.publish("bus.broken", b"2")
    await eventually(lambda: seen == [b"1", b"2"])
    assert "broken handler" in caplog.text


async def test_a_drained_subscription_has_handled_everything_that_was_sent(bus: Bus) -> None:
    seen: list[bytes] = []
    subscription = await bus.subscribe("bus.drained", lambda message: seen.append(message.data))
    for number in range(1000):
        await bus.publish("bus.drained", str(number).encode())
    await subscription.drain()
    assert len(seen) == 1000
    await bus.publish("bus.drained", b"late")
    await bus.flush()
    assert len(seen) == 1000


async def test_a_queue_group_shares_its_messages(bus: Bus) -> None:
    seen: list[str] = []
    await bus.subscribe("bus.shared", lambda _: seen.append("a"), queue="group")
    await bus.subscribe("bus.shared", lambda _: seen.append("b"), queue="group")
    for _ in range(100):
        await bus.publish("bus.shared")
    await eventually(lambda: len(seen) == 100)
    await bus.flush()
    assert len(seen) == 100
    assert set(seen) == {"a", "b"}


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1", "nats://", "http://[bad"])
async def test_connecting_to_nothing_says_where(url: str) -> None:
    with pytest.raises(BusUnavailable, match="no NATS server answers at"):
        await connect(url, connect_timeout_s=0.5)


async def test_a_denied_publish_is_counted_and_logged(
    tmp_path: Path, own_nats: RunningNats, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.fixtures.restricted_nats import restricted_nats

    with restricted_nats(tmp_path, deny="secret.>") as url:
        bus = await connect(url)
        denied = metric("orchestra_bus_denied_publishes_total")
        await bus.publish("secret.plan", b"x")
        await eventually(lambda: metric("orchestra_bus_denied_publishes_total") == denied + 1)
        assert "NATS denied test" in caplog.text
        assert "secret.plan" in caplog.text
        await echo(bus, "open.plan")
        assert (await bus.request("open.plan", b"fine")).data == b"fine"
        await bus.close()


async def test_a_publisher_that_never_pauses_lets_others_run(bus: Bus) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    for _ in range(5000):
        await bus.publish("bus.void", b"x")
    assert turns >= 5
    task.cancel()


async def test_a_slow_consumer_is_counted_and_logged(
    nats_server: RunningNats, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await connect(nats_server.url, pending_messages=10)
    gate = asyncio.Event()

    async def stuck(message: Message) -> None:
        await gate.wait()

    await bus.subscribe("bus.stuck", stuck)
    dropped = metric("orchestra_bus_slow_consumer_total")
    for _ in range(30):
        await bus.publish("bus.stuck")
    await eventually(lambda: metric("orchestra_bus_slow_consumer_total") >= dropped + 15)
    assert "slow consumer: a message on bus.stuck was dropped" in caplog.text
    gate.set()
    await bus.close()


async def test_a_dead_server_fails_requests_at_once_and_a_new_one_on_its_port_is_found(
    own_nats: RunningNats, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await connect(own_nats.url)
    reconnects = metric("orchestra_bus_reconnects_total")
    await bus.subscribe("bus.silent", lambda _: None)
    asking = asyncio.ensure_future(bus.request("bus.silent", timeout=60))
    await eventually(lambda: bus.reply_inbox.waiting)
    own_nats.kill()
    with pytest.raises(BusUnavailable, match="lost before the answer"):
        await asyncio.wait_for(asking, 30)
    with pytest.raises(BusUnavailable, match="not connected"):
        await bus.publish("bus.echo")
    with pytest.raises(BusUnavailable):
        await bus.flush()
    await asyncio.to_thread(own_nats.restart)
    await eventually(lambda: bus.connected)
    assert metric("orchestra_bus_reconnects_total") == reconnects + 1
    await echo(bus, "bus.echo")
    assert (await bus.request("bus.echo", b"again")).data == b"again"
    assert "lost its connection" in caplog.text
    await bus.close()


async def test_subscriptions_are_there_again_before_anything_is_sent(own_nats: RunningNats) -> None:
    bus = await connect(own_nats.url)
    await echo(bus, "bus.echo")
    await bus.flush()
    for _ in range(3):
        own_nats.kill()
        await eventually(lambda: not bus.connected)
        await asyncio.to_thread(own_nats.restart)
        await eventually(lambda: bus.connected)
        assert (await bus.request("bus.echo", b"x", timeout=30)).data == b"x"
    await bus.close()


async def test_a_listener_that_fails_keeps_no_other_from_hearing(own_nats: RunningNats) -> None:
    bus = await connect(own_nats.url)
    heard: list[str] = []

    def fails() -> None:
        raise RuntimeError("listener")

    bus.on_disconnect += [fails, lambda: heard.append("lost")]
    bus.on_reconnect += [fails, lambda: heard.append("back")]
    own_nats.kill()
    await eventually(lambda: heard == ["lost"])
    await asyncio.to_thread(own_nats.restart)
    await eventually(lambda: heard == ["lost", "back"])
    await bus.close()


async def test_closing_sends_what_was_published_and_fails_what_waits(
    nats_server: RunningNats, bus: Bus
) -> None:
    other = await connect(nats_server.url)
    seen: list[bytes] = []
    await bus.subscribe("bus.last", lambda message: seen.append(message.data))
    await bus.subscribe("bus.silent", lambda _: None)
    await bus.flush()
    asking = asyncio.ensure_future(other.request("bus.silent", timeout=60))
    await eventually(lambda: other.reply_inbox.waiting)
    await other.publish("bus.last", b"words")
    await other.close()
    await eventually(lambda: seen == [b"words"])
    with pytest.raises(BusUnavailable):
        await asking
    with pytest.raises(BusUnavailable):
        await other.publish("bus.last")
