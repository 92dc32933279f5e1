"""What was to be written when a connection goes."""

from __future__ import annotations

import asyncio

from actors.bus.bus import Bus, BusSettings, Message
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats


async def test_what_is_written_to_a_connection_that_just_went_leaves_no_traceback_and_comes_later(
    nats_server: RunningNats, bus: Bus
) -> None:
    crashes: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: crashes.append(str(what)))
    heard: list[bytes] = []

    def hear(message: Message) -> None:
        heard.append(message.data)

    await bus.subscribe("outbox.test", hear)
    await bus.flush()
    writer = await Bus.connect(BusSettings(url=nats_server.url, reconnect_wait_s=0.01), name="writer")
    disconnects: list[None] = []
    writer.on_disconnect.append(lambda: disconnects.append(None))
    for number in range(3):
        disconnects.clear()
        await eventually(lambda: writer.connected)
        writer.client._transport._io_writer.transport.abort()  # type: ignore[union-attr]
        writer.post("outbox.test", b"%d" % number)  # nobody knows yet
        await eventually(lambda: disconnects)
    await eventually(lambda: writer.connected)
    await eventually(lambda: heard == [b"0", b"1", b"2"])
    await writer.close()
    assert crashes == []
