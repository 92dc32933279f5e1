"""Time until three gateways, each a process, follow a change of settings: at rest, and while they serve."""

from __future__ import annotations

import asyncio
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from actors.bus.bus import Bus, BusSettings
from actors.config.hot_settings import HotSettings
from actors.config.settings_writer import ChangeNote, SettingsWriter
from actors.settings import Settings
from tests.fixtures.nats import start_nats
from tests.fixtures.process import Process, orchestra

GATEWAYS = 3
ROUNDS = 40
CLIENTS = 8
LIMIT_S = 1.0
NOTE = ChangeNote(by="bench")
KEY = "gateway.callers.bench.key"
LOAD_KEY = "key-of-the-load"
Row = tuple[float, float]
"""Seconds from the call until the change is written, and until every gateway takes the new key."""


async def until_taken(http: aiohttp.ClientSession, url: str, key: str) -> None:
    """Ask a gateway until it takes the key."""
    headers = {"Authorization": f"Bearer {key}"}
    while True:
        async with http.get(f"{url}/v1/patterns", headers=headers) as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.001)


async def change(
    writer: SettingsWriter[Settings], http: aiohttp.ClientSession, urls: list[str], key: str
) -> Row:
    """Rotate a key, and measure."""
    began = time.perf_counter()
    taking = [asyncio.create_task(until_taken(http, url, key)) for url in urls]
    made = await writer.set({KEY: key}, NOTE)
    assert made is not None
    written = time.perf_counter() - began
    await asyncio.gather(*taking)
    taken = time.perf_counter() - began
    states = await writer.followers(made.id)
    assert len(states) > GATEWAYS
    assert all(state.revision == made.id for state in states)
    return written, taken


@asynccontextmanager
async def load(urls: list[str], clients: int) -> AsyncIterator[list[int]]:
    """Clients that ask the gateways without a pause; counts the answers."""
    answers = [0]

    async def ask(url: str) -> None:
        body = {"model": "echo", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 8}
        body["temperature"] = 1
        headers = {"Authorization": f"Bearer {LOAD_KEY}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            while True:
                async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()
                    answers[0] += 1

    tasks = [asyncio.create_task(ask(urls[number % len(urls)])) for number in range(clients)]
    try:
        yield answers
        assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure(url: str, urls: list[str]) -> None:
    """Print the table."""
    async with AsyncExitStack() as stack:
        bus = await Bus.connect(BusSettings(url=url), name="bench")
        stack.push_async_callback(bus.close)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        writer = SettingsWriter(bus, HotSettings(Settings()))
        await writer.set({"gateway.callers.load.key": LOAD_KEY}, NOTE)
        await asyncio.gather(*(until_taken(http, each, LOAD_KEY) for each in urls))
        print(f"{'ms':24}{'written':>12}{'new key taken':>15}{'worst':>10}{'answers/s':>12}")
        for name, clients in (("at rest", 0), (f"{CLIENTS} clients", CLIENTS)):
            async with load(urls, clients) as answers:
                began = time.perf_counter()
                keys = [f"key-of-round-{clients}-{number}" for number in range(ROUNDS)]
                rows = [await change(writer, http, urls, key) for key in keys]
                rate = answers[0] / (time.perf_counter() - began)
            written, taken = (statistics.median(column) * 1e3 for column in zip(*rows, strict=True))
            worst = max(row[1] for row in rows)
            print(f"{name:24}{written:12.1f}{taken:15.1f}{worst * 1e3:10.1f}{rate:12.0f}")
            assert worst < LIMIT_S, f"{worst:.2f} s is longer than the limit of {LIMIT_S:g} s"
    print(f"medians of {ROUNDS} rotations of a key at {GATEWAYS} gateways; limit {LIMIT_S * 1e3:g} ms")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        nats = start_nats(Path(folder) / "nats")
        usual = ("--nats", nats.url, "--data", folder)
        processes: list[Process] = []
        try:
            gateway = ("gateway", *usual, "--http", "127.0.0.1:0")
            for words in (*[gateway] * GATEWAYS, ("node", *usual, "--backend", "echo")):
                processes += [orchestra(*words)]
            for process in processes:
                process.wait_for("Orchestra ")
            urls = [re.findall(r"gateway is at (http://\S+)", each.said)[0] for each in processes[:GATEWAYS]]
            asyncio.run(measure(nats.url, urls))
        finally:
            for process in processes:
                process.__exit__(None, None, None)
            nats.stop()


if __name__ == "__main__":
    main()
