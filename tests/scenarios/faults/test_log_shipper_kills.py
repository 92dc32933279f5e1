"""SIGKILL of the log shipper at each point of its work: every event is in MongoDB once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from actors.logs.mongo_store import MongoStore
from actors.logs.settings import MongoSettings
from orchestration.log_events import LogEvent
from tests.actors.logs.test_shipper import all_settled
from tests.fixtures.eventually import eventually
from tests.fixtures.log_stream import logs_bus, store
from tests.fixtures.mongo import MongoProxy, RunningMongo, mongo_proxy, own_mongo
from tests.fixtures.nats import RunningNats
from tests.fixtures.proxy import Proxy, proxy_to

__all__ = ["own_mongo"]

DATABASE = "kills"


class ShipperProcess:
    """`orchestra logs ship`, killed where a test says and started again."""

    def __init__(self, folder: Path, nats: Proxy, mongo: MongoProxy) -> None:
        self.nats = nats
        self.mongo = mongo
        self.config = folder / "orchestra.toml"
        self.config.write_text(
            f'[logs.mongodb]\nurl = "{mongo.url}"\ndatabase = "{DATABASE}"\n'
            "batch = 20\nlinger_s = 0.01\ntimeout_s = 3\n[telemetry]\nmetrics = ''\n"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.killed = asyncio.Event()

    def start(self) -> None:
        command = [sys.executable, "-m", "actors.cli", "logs", "ship", "--nats", self.nats.url]
        self.process = subprocess.Popen([*command, "--config", str(self.config)], stdout=subprocess.DEVNULL)

    async def kill(self) -> None:
        """Kill it, with what it has in hand."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.mongo.at_insert = self.mongo.at_inserted = None
        self.mongo.cut()
        self.nats.cut()
        self.nats.frozen = False
        self.killed.set()
        raise ConnectionError("killed")

    async def before_the_write(self) -> None:
        self.mongo.at_insert = self.kill

    async def before_the_answer(self) -> None:
        self.mongo.at_inserted = self.kill

    async def before_the_acknowledgement(self) -> None:
        async def freeze() -> None:
            self.nats.frozen = True  # the acknowledgements get no further
            self.mongo.at_insert = self.kill  # the next batch: they were sent

        self.mongo.at_inserted = freeze


async def _killed_at(shipper: ShipperProcess, arm: Callable[[], Awaitable[None]]) -> None:
    shipper.killed.clear()
    await arm()
    shipper.start()
    async with asyncio.timeout(60):
        await shipper.killed.wait()


async def test_a_shipper_killed_at_each_point_loses_and_doubles_nothing(
    own_nats: RunningNats, own_mongo: RunningMongo, tmp_path: Path
) -> None:
    bus = await logs_bus(own_nats.url)
    await store(bus, *(LogEvent(id=f"e{n}", at=time.time(), name="run.ended") for n in range(600)))
    async with proxy_to(own_nats.port) as nats, mongo_proxy(own_mongo.port) as mongo:
        shipper = ShipperProcess(tmp_path, nats, mongo)
        for arm in (shipper.before_the_write, shipper.before_the_answer, shipper.before_the_acknowledgement):
            await _killed_at(shipper, arm)
        shipper.start()
        assert shipper.process is not None
        await all_settled(bus, within_s=90)
        shipper.process.terminate()
        await eventually(lambda: shipper.process is None or shipper.process.poll() is not None)
        assert shipper.process.returncode == 0
    reader = MongoStore(MongoSettings(url=own_mongo.url, database=DATABASE))
    found = [each["_id"] for each in await reader._events.find({"kind": "run"}).to_list(None)]
    await reader.close()
    await bus.close()
    assert sorted(found) == sorted(f"e{n}" for n in range(600))
