from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry, Counter

from actors.telemetry.exposition import exposition
from actors.telemetry.process_metrics import LAG_INTERVAL_S, ExpiryTimes, LoopLag
from tests.fixtures.eventually import eventually
from tests.fixtures.scrape import parse


async def test_a_loop_that_was_blocked_shows_by_how_much() -> None:
    async def late(bound: str) -> float:
        scraped = parse((await exposition()).decode())
        name = "orchestra_event_loop_lag_seconds_bucket"
        return scraped.total(name, le="+Inf") - scraped.total(name, le=bound)

    before = await late("0.1")
    lag = LoopLag()
    lag.start()
    try:
        time.sleep(LAG_INTERVAL_S + 0.3)  # noqa: ASYNC251 - this is what is measured

        async def seen() -> bool:
            return await late("0.1") > before

        await eventually(seen)
    finally:
        lag.stop()


async def test_the_loop_goes_on_while_many_metrics_are_written() -> None:
    registry = CollectorRegistry()
    for number in range(100):
        counter = Counter(f"many_{number}", "One of many", ["value"], registry=registry)
        for value in range(20):
            counter.labels(str(value)).inc()
    turns, over = 0, False

    async def turn() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    text = await exposition(registry)
    over = True
    await turning
    assert turns >= 5
    assert len(parse(text.decode()).samples) == 2000


async def test_what_expires_is_exported_with_the_time_left_and_nothing_if_nothing_does() -> None:
    registry, times = CollectorRegistry(), ExpiryTimes()
    registry.register(times)
    assert await exposition(registry) == b""
    times.set("api_key", time.time() + 3600)
    times.set("tls_certificate", time.time() - 60)
    scraped = parse((await exposition(registry)).decode())
    assert 3500 < scraped.total("orchestra_expiry_seconds", kind="api_key") <= 3600
    assert scraped.total("orchestra_expiry_seconds", kind="tls_certificate") < 0
    times.set("api_key", None)
    times.set("tls_certificate", None)
    assert await exposition(registry) == b""
