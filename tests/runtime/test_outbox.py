"""What was to be written when a connection goes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from actors.runtime.bus import Bus, BusSettings
from orchestration.errors import BusUnavailable
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.proxy import Proxy, proxy_to

CUTS = 100


async def cut(proxy: Proxy) -> None:
    """At every moment of a connection's life, its beginning too."""
    for number in range(CUTS):
        proxy.cut()
        await asyncio.sleep(0.001 * (number % 10))


async def test_a_connection_that_goes_while_it_is_written_to_leaves_no_traceback(
    nats_server: RunningNats,
) -> None:
    crashes: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: crashes.append(str(what["message"])))
    async with proxy_to(nats_server.port) as proxy:
        writer = await Bus.connect(BusSettings(url=proxy.url, reconnect_wait_s=0.01), name="writer")
        cutting = asyncio.ensure_future(cut(proxy))
        while not cutting.done():
            with suppress(BusUnavailable):
                writer.post("outbox.test", b"x" * 1000)
            await asyncio.sleep(0)
        await eventually(lambda: writer.connected)
        await writer.flush()
        await writer.close()
    assert not [each for each in crashes if "write_now" in each]
