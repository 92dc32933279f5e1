"""What `nats_client` uses of nats-py beyond its public interface: one test for each private name."""

from __future__ import annotations

import asyncio
import logging
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from actors.bus import nats_client
from actors.bus.bus import Bus, BusSettings, Message
from actors.bus.nats_client import (
    PRIVATE_NAMES,
    SUPPORTED_VERSIONS,
    NatsConnection,
    UnsupportedNatsPy,
    missing_private_names,
)
from orchestration.errors import BusUnavailable
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.proxy import proxy_to


@pytest.fixture
async def writer(nats_server: RunningNats) -> AsyncIterator[Bus]:
    bus = await Bus.connect(BusSettings(url=nats_server.url, reconnect_wait_s=0.01), name="writer")
    yield bus
    await bus.close()


async def received(bus: Bus, subject: str) -> list[bytes]:
    """A list that gets the data of every message on `subject`."""
    found: list[bytes] = []
    await bus.subscribe(subject, lambda message: found.append(message.data))
    await bus.flush()
    return found


def test_the_supported_versions_are_those_of_pyproject() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert f"nats-py{SUPPORTED_VERSIONS}" in project["dependencies"]


def test_the_installed_version_has_every_private_name() -> None:
    assert missing_private_names() == []


@pytest.mark.parametrize("name", [name for name in PRIVATE_NAMES[Client] if name in vars(Client)])
async def test_a_version_without_a_private_method_is_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delattr(Client, name)
    nats_client._check_version.cache_clear()
    with pytest.raises(UnsupportedNatsPy, match=rf"nats-py \d\S* lacks Client\.{name}: install .*nats-py>="):
        NatsConnection(BusSettings(), "test")


async def test_process_msg_hands_a_message_over_without_a_queue_or_a_task(bus: Bus) -> None:
    seen: list[Message] = []
    subscription = await bus.subscribe("client.direct", seen.append)
    tasks = len(asyncio.all_tasks())
    reply = bus.expect(lambda _: None)
    await bus.nats._client.publish("client.direct", b"data", reply, {"A": "b"})
    await eventually(lambda: seen)
    assert seen == [Message("client.direct", reply, b"data", {"A": "b"})]
    assert len(asyncio.all_tasks()) == tasks
    await subscription.unsubscribe()


async def test_subs_and_future_hold_the_handler_until_its_subscription_ends(bus: Bus) -> None:
    client = bus.nats._client
    before = dict(client._subs)
    subscription = await bus.subscribe("client.held", lambda _: None)
    (number,) = set(client._subs) - set(before)
    assert isinstance(client._subs[number]._future, nats_client._DirectDelivery)
    await subscription.unsubscribe()
    assert client._subs == before


@pytest.mark.parametrize("subject", ["", "two words", "a..b"])
async def test_a_subscription_that_nats_py_refuses_leaves_no_handler_behind(bus: Bus, subject: str) -> None:
    refused: list[Message] = []
    before = dict(bus.nats._client._subs)
    with pytest.raises(ValueError, match="cannot be subscribed to"):
        await bus.subscribe(subject, refused.append, exclusive=True)
    assert bus.nats._client._subs == before
    assert subject not in bus.local_handlers
    seen: list[Message] = []

    async def handler(message: Message) -> None:
        seen.append(message)

    subscription = await bus.subscribe("client.next", handler)
    await bus.publish("client.next", b"data")
    await eventually(lambda: seen)
    assert refused == []
    await subscription.unsubscribe()


async def test_a_subscription_that_cannot_be_sent_is_not_made_at_the_next_reconnect(
    writer: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = writer.nats._client
    before = dict(client._subs)

    async def broken(subscription: object) -> None:
        raise OSError("the socket is gone")

    with monkeypatch.context() as patched:
        patched.setattr(client, "_send_subscribe", broken)
        with pytest.raises(BusUnavailable, match="the socket is gone"):
            await writer.subscribe("client.unsent", lambda _: None)
    assert client._subs == before


async def test_pending_commands_are_written_together_in_the_next_turn_of_the_loop(bus: Bus) -> None:
    seen = await received(bus, "client.batch")
    client = bus.nats._client
    for number in range(3):
        bus.post("client.batch", b"%d" % number)
    assert [command.split(b" ")[1] for command in client._pending] == [b"client.batch"] * 3
    assert client._pending_data_size == sum(map(len, client._pending))
    await asyncio.sleep(0)
    assert (client._pending, client._pending_data_size) == ([], 0)
    await eventually(lambda: seen == [b"0", b"1", b"2"])


async def test_send_ping_writes_pending_commands_first_so_that_a_flush_is_a_barrier(bus: Bus) -> None:
    seen = await received(bus, "client.flushed")
    bus.post("client.flushed", b"data")
    await bus.nats._client.flush()
    assert seen == [b"data"]


@pytest.mark.parametrize(
    ("command", "accepted"),
    [
        (b"PUB client.foreign.x \xff\xfe 2", False),
        (b"PUB client.foreign.\xff\xfe 2", False),
        (b"PUB client.foreign.x a\x0bb 2", False),
        (b"PUB client.foreign.a\x0cb 2", False),
        (b"PUB client.foreign.x a\x00b 2", False),
        (b"PUB client.foreign.x " + b"a" * 2000 + b" 2", False),
        (b"PUB client.foreign.x " + b"a" * 1000 + b" 2", True),
        ("PUB client.foreign.é ü 2".encode(), True),
        (b"HPUB client.foreign.x a\x0bb 12 14\r\nNATS/1.0", False),
        (b"HPUB client.foreign.x 13 15\r\nNATS/1.0\xff", True),
        (b"HPUB client.foreign.x 2 4", True),
    ],
)
async def test_no_message_of_a_foreign_client_ends_the_connection_of_who_gets_it(
    bus: Bus, nats_server: RunningNats, command: bytes, accepted: bool
) -> None:
    seen = await received(bus, "client.foreign.*")
    before = bus.connection_id
    host, port = nats_server.url.removeprefix("nats://").split(":")
    _, foreign = await asyncio.open_connection(host, int(port))
    try:
        foreign.write(b'CONNECT {"headers":true,"no_responders":true}\r\n')
        blank = b"\r\n" if command.startswith(b"HPUB") else b""
        foreign.write(command + b"\r\n" + blank + b"hi\r\n")
        foreign.write(b"PUB client.foreign.last 4\r\nlast\r\n")
        await eventually(lambda: b"last" in seen)
    finally:
        foreign.close()
    assert seen == ([b"hi", b"last"] if accepted else [b"last"])
    assert bus.connection_id == before


async def test_a_connection_still_reads_after_a_flush_was_cancelled(bus: Bus) -> None:
    seen = await received(bus, "client.after")
    flushing = asyncio.create_task(bus.flush())
    await asyncio.sleep(0)  # the ping is sent
    flushing.cancel()
    assert (await asyncio.gather(flushing, return_exceptions=True))[0] is not None
    await bus.flush()
    bus.post("client.after", b"data")
    await eventually(lambda: seen == [b"data"])


async def test_a_cancellation_that_comes_together_with_the_answer_to_a_flush_is_not_lost(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def flush_and_wait() -> None:
        await bus.flush()
        await asyncio.Event().wait()

    answer = Client._process_pong

    async def answer_and_cancel(client: Client) -> None:
        await answer(client)
        monkeypatch.undo()
        flushing.cancel()

    monkeypatch.setattr(Client, "_process_pong", answer_and_cancel)
    flushing = asyncio.create_task(flush_and_wait())
    done, _ = await asyncio.wait({flushing}, timeout=10)
    flushing.cancel()
    assert done


async def test_transport_keeps_what_was_written_to_a_connection_that_was_just_lost(
    bus: Bus, writer: Bus
) -> None:
    crashes: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: crashes.append(str(what)))
    seen = await received(bus, "client.kept")
    disconnects: list[None] = []
    writer.on_disconnect.append(lambda: disconnects.append(None))
    for number in range(3):
        disconnects.clear()
        await eventually(lambda: writer.connected)
        writer.nats.abort()
        writer.post("client.kept", b"%d" % number)  # the loss is not known yet
        await eventually(lambda: disconnects)
    await eventually(lambda: writer.connected)
    await eventually(lambda: seen == [b"0", b"1", b"2"])
    assert crashes == []


async def test_process_err_and_process_op_err_reconnect_after_a_complaint_of_the_server(
    writer: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    reconnects: list[None] = []
    writer.on_reconnect.append(lambda: reconnects.append(None))
    writer.nats._client.send_command(b"NONSENSE\r\n")
    await eventually(lambda: reconnects)
    assert "reconnecting after a complaint of the NATS server" in caplog.text
    await writer.flush()


async def test_attempt_reconnect_and_io_writer_leave_a_server_that_no_longer_reads(
    nats_server: RunningNats,
) -> None:
    async with proxy_to(nats_server.port) as proxy:
        settings = BusSettings(url=proxy.url, ping_interval_s=0.1, reconnect_wait_s=0.01)
        bus = await Bus.connect(settings, name="test")
        proxy.frozen = True

        async def flood() -> None:
            while True:
                await bus.publish("client.flood", bytes(100_000))

        with pytest.raises(BusUnavailable):
            await asyncio.wait_for(flood(), 30)
        await eventually(lambda: not bus.connected)
        proxy.frozen = False
        await eventually(lambda: bus.connected)
        await bus.close()


async def test_error_cb_gets_what_the_server_denies(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await bus.nats._client._process_err("'permissions violation for publish to \"secret\"'")
    assert f"NATS denied {bus.name}" in caplog.text
    assert bus.connected


async def test_status_refuses_messages_while_the_connection_is_lost(own_nats: RunningNats) -> None:
    bus = await Bus.connect(BusSettings(url=own_nats.url, reconnect_wait_s=0.01), name="test")
    own_nats.kill()
    await eventually(lambda: not bus.nats.is_connected)
    with pytest.raises(BusUnavailable, match="not connected to NATS at"):
        bus.nats.check_message("client.lost", "", b"", None)
    await bus.close()


async def test_server_info_identifies_the_connection(writer: Bus) -> None:
    before = writer.connection_id
    assert "None" not in before
    writer.nats.abort()
    await eventually(lambda: writer.connected and writer.connection_id != before)


@pytest.mark.parametrize("url", ["http://[bad", "nats://127.0.0.1:1"])
async def test_flush_queue_says_whether_a_failed_connect_has_anything_to_close(url: str) -> None:
    with pytest.raises(BusUnavailable, match="no NATS server answers at"):
        await Bus.connect(BusSettings(url=url, connect_timeout_s=0.3), name="test")


@pytest.mark.parametrize("call", ["connect", "drain"])
async def test_a_cancellation_that_comes_together_with_the_result_is_kept(
    nats_server: RunningNats, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    original = getattr(Client, call)

    async def cancelled_at_its_end(client: Client, **options: object) -> None:
        await original(client, **options)
        asyncio.get_running_loop().call_soon(task.cancel)

    monkeypatch.setattr(Client, call, cancelled_at_its_end)

    async def connect_and_close() -> None:
        bus = await Bus.connect(BusSettings(url=nats_server.url), name="cancelled")
        await bus.close()
        await asyncio.Event().wait()  # who is cancelled must not get here

    task = asyncio.create_task(connect_and_close())
    done, _ = await asyncio.wait({task}, timeout=20)
    assert done
    assert task.cancelled()
