"""The central log: cost of an event, events a second to NATS and to MongoDB, first pages of a full stream.

    python -m tests.bench.logs [--events 1000000] [--shipped 20000]

- record: what recording an event costs its caller, in µs, without waiting for anything
- publisher: events a second from the buffer to the stream's acknowledgement, and CPU for each
- first pages: over so many events, with 1 in 5,000 an error, 1 in 100 a warning, 200 callers, 5 events a run
- shipper: events a second to MongoDB at `MONGODB_URL`, or to the server of its protocol that the tests use,
  which is no measure of MongoDB
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import uvloop

from actors.bus.bus import Bus
from actors.bus.provision import call_api
from actors.logs.event_form import encoded_event, subject_of
from actors.logs.filter import LogFilter
from actors.logs.publisher import LogPublisher
from actors.logs.reader import LogReader
from actors.logs.settings import LogsSettings, MongoSettings
from actors.logs.shipper import Shipper
from actors.telemetry.event_log import EventLog
from orchestration.log_events import LogEvent, LogLevel
from tests.fixtures.eventually import eventually
from tests.fixtures.log_stream import last_sequence, logs_bus
from tests.fixtures.mongo import RunningMongo, new_database, start_mongo
from tests.fixtures.nats import RunningNats, start_nats

ROUNDS = 5
AT_ONCE = 4_000
"""Events on their way to the stream."""
NOW = time.time()
WAIT_S = 300.0


def event_of(number: int, draw: random.Random) -> LogEvent:
    """One of many requests."""
    level = (
        LogLevel.ERROR if number % 5_000 == 0 else LogLevel.WARNING if number % 100 == 0 else LogLevel.INFO
    )
    return LogEvent(
        id=f"gateway-host-1a2b/19a/{number}",
        at=NOW + number / 100_000,
        name="request.ended",
        level=level,
        process="gateway-host-1a2b",
        role="gateway",
        host="host",
        run=f"36f64c40ef1b.{number // 5:x}",
        trace=f"{draw.getrandbits(128):032x}",
        caller=f"caller{number % 200}",
        model="smollm2-135m",
        node="onnx-host-1",
        message="POST /v1/chat/completions answered with 200 after 1.234 s, 20 tokens",
        data={"route": "POST /v1/chat/completions", "status": 200, "duration_s": 1.234, "output_tokens": 20},
    )


async def publish(bus: Bus, count: int) -> None:
    """Print the cost of recording and the rate of publishing."""
    source = EventLog()
    settings = LogsSettings(flush_s=0.01, buffer_events=count + 1, buffer_mib=1_000)
    publisher = LogPublisher(bus, settings, source)
    await publisher.start()
    data = {"route": "POST /v1/chat/completions", "status": 200, "duration_s": 1.234, "output_tokens": 20}
    began, cpu = time.perf_counter(), time.process_time()
    for number in range(count):
        source.record("request.ended", run=f"a.{number}", caller="anonymous", message="answered", data=data)
    recorded_s = time.perf_counter() - began
    await eventually(lambda: not publisher.pending, within_s=WAIT_S)
    whole_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    await publisher.stop()
    print(f"record                {recorded_s / count * 1e6:8.1f} µs an event")
    print(f"publisher             {count / whole_s:8.0f} events/s, {cpu_s / count * 1e6:.0f} µs CPU an event")


async def fill(bus: Bus, count: int) -> str:
    """Fill the stream, beyond its usual size if need be. Returns the trace of an event in the middle."""
    config = (await call_api(bus, "STREAM.INFO.LOGS"))["config"]
    await call_api(bus, "STREAM.UPDATE.LOGS", config | {"max_bytes": 2**30})
    draw, trace = random.Random(1), ""
    first = await last_sequence(bus)
    for number in range(count):
        event = event_of(number, draw)
        if number == count // 2:
            trace = event.trace
        await bus.publish(subject_of(event), encoded_event(event, 65_536))
        if number % AT_ONCE == 0:  # the server drops what it cannot store in time
            await eventually(partial(is_stored, bus, first + number - AT_ONCE), within_s=WAIT_S)
    await eventually(lambda: is_stored(bus, first + count), within_s=WAIT_S)
    return trace


async def is_stored(bus: Bus, last: int) -> bool:
    return await last_sequence(bus) >= last


async def first_pages(bus: Bus, count: int, trace: str) -> None:
    """Print the time of first pages: the first time, and the median afterwards."""
    run = f"36f64c40ef1b.{count // 10:x}"
    filters = {
        "no filter": LogFilter(),
        "one run": LogFilter(run=run),
        "one trace": LogFilter(trace=trace),
        "warnings (1 %)": LogFilter(level=LogLevel.WARNING),
        "errors (0.02 %)": LogFilter(level=LogLevel.ERROR),
        "one caller of 200": LogFilter(caller="caller7"),
    }
    reader = LogReader(bus, own_connection=False)
    for name, wanted in filters.items():
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            page = await reader.page(wanted, limit=100)
            times.append((time.perf_counter() - began) * 1000)
        middle = statistics.median(times[1:])
        found = len(page.events)
        print(f"page, {name:18}{times[0]:8.0f} ms first, {middle:7.1f} ms then, {found} events")


async def ship(bus: Bus, mongo: RunningMongo, count: int, driver: str) -> None:
    """Print the rate of the shipper."""
    await call_api(bus, "STREAM.PURGE.LOGS")
    draw = random.Random(2)
    for number in range(count):
        event = event_of(number, draw)
        await bus.publish(subject_of(event), encoded_event(event, 65_536))
    await bus.flush()
    settings = MongoSettings.model_validate(
        {"url": mongo.url, "database": new_database(), "driver": driver, "timeout_s": 60}
    )
    shipper = Shipper(bus, settings, "bench", EventLog())
    began, cpu = time.perf_counter(), time.process_time()
    await shipper.start()
    await eventually(lambda: all_settled(bus), within_s=WAIT_S)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    written = await shipper.store._events.count_documents({})
    await shipper.stop()
    print(
        f"shipper by {driver:10} {count / seconds:8.0f} events/s, {cpu_s / count * 1e6:.0f} µs CPU an event; "
        f"sent {count}, written {written}"
    )


async def all_settled(bus: Bus) -> bool:
    info = await call_api(bus, "CONSUMER.INFO.LOGS.log-shipper")
    return not info["num_pending"] + info["num_ack_pending"]


async def measure(nats: RunningNats, mongo: RunningMongo, events: int, shipped: int) -> None:
    bus = await logs_bus(nats.url)
    await publish(bus, 20_000)
    trace = await fill(bus, events)
    await first_pages(bus, events, trace)
    for driver in ("motor", "pymongo"):
        await ship(bus, mongo, shipped, driver)
    await bus.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--shipped", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestra-logs-") as folder:
        nats = start_nats(Path(folder) / "nats")
        url = os.environ.get("MONGODB_URL", "")
        mongo = RunningMongo(url, 0) if url else start_mongo(Path(folder) / "mongo")
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure(nats, mongo, options.events, options.shipped))
        finally:
            mongo.stop()
            nats.stop()


if __name__ == "__main__":
    main()
