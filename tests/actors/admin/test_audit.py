"""The audit: each operation that changes something makes exactly one record, which the stream has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from actors.admin.audit import EVENT, Audit, Changed, RecordNotStored
from actors.admin.operations import ADMIN_OPERATIONS
from actors.admin.requests import ChangeRequest
from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings
from actors.bus.jetstream import enqueue
from actors.bus.key_value import Bucket
from actors.bus.message import Message
from actors.cluster.registry import BUCKET
from actors.gateway.operation import CallContext
from actors.jobs.dead_letters import dead_letter
from actors.logs.filter import LogFilter
from actors.logs.reader import LogReader
from actors.node.settings import NodeSettings
from actors.runtime.envelope import OPERATOR, REASON
from actors.runtime.service_client import jobs_call
from actors.streams.client import ID_HEADER
from orchestration.log_events import LogEvent, LogKind
from tests.fixtures.admin import Operator
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats

CHANGES = {
    each.subject.removeprefix("orchestra.admin.") for each in ADMIN_OPERATIONS if each.method == "POST"
}
TOLD_ELSEWHERE = {"models.pull"}
"""Changes whose record another test of this folder shows, since they need a real model."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    echo = EchoSettings(models=("one", "two"), model_mb=10)
    backends = [
        ("a", EchoBackend(echo)),
        ("b", EchoBackend(echo)),
        ("slow", EchoBackend(EchoSettings(models=("slow",), speed=20, model_mb=1))),
    ]
    with running_cluster(backends, agents=True, node=NodeSettings(memory_mb=10)) as running:
        yield running


class Changes:
    """Makes each change once, in an order in which each changes something."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.operator = Operator(cluster, caller="auditor")
        self.made: list[str] = []
        self.key = ""

    async def make(self, action: str, /, **fields: Any) -> Any:
        self.made.append(action)
        return await self.operator.call(action, **fields, reason=f"why {action}")

    async def all(self) -> None:
        await self.make("nodes.label", id="a", labels={"zone": "eu"})
        info = self.cluster.nodes["a"].describe().model_copy(update={"id": "dead", "models": ()})
        self.cluster.call(Bucket(self.cluster.bus, BUCKET).put("dead", info.model_dump_json().encode()))
        await self.make("nodes.remove", id="dead")
        await self.make("models.load", model="two", node="a")
        await self.make("models.unload", model="two", node="a")
        await self.make("models.pin", model="one", node="a")
        await self.make("breakers.hold", model="one", node="b")
        await self.make("breakers.reset", model="one")
        await self.make("cache.clear")
        await self.make("patterns.disable", pattern="debate")
        await self.make("patterns.enable", pattern="debate")
        await self._queues()
        await self._runs()
        await self._letters()
        await self._settings()
        await self.make("nodes.drain", id="b")

    async def _queues(self) -> None:
        await self.make("queues.pause", queue="runs")
        async with aiohttp.ClientSession(self.cluster.url) as http:
            async with http.post("/v1/jobs", json=chat("one")) as answer:
                assert answer.status == 202
        counted = await self.operator.call("queues.purge", queue="runs")
        await self.make("queues.purge", queue="runs", confirm=counted["confirm"])
        await self.make("queues.resume", queue="runs")

    async def _runs(self) -> None:
        async with aiohttp.ClientSession(self.cluster.url) as http:
            for name in ("runs.cancel", "runs.cancel_matching"):
                async with http.post("/v1/jobs", json=chat("slow")) as answer:
                    job = (await answer.json())["id"]

                async def runs(job: str = job) -> bool:
                    page = await self.operator.call("runs.list")
                    return any(row["id"] == job for row in page["data"])

                await eventually(runs)
                await self.make(name, **({"id": job} if name == "runs.cancel" else {"model": "slow"}))

    async def _letters(self) -> None:
        for number, name in ((1, "dead.delete"), (2, "dead.retry")):
            headers = {ID_HEADER: f"job.{number:024x}"}
            message = Message("webhooks.job", "", b'{"id": "x", "retry_number": 0}', headers)
            letter = dead_letter(self.cluster.bus, message, reason="a test", attempts=1, error=None)
            self.cluster.call(letter)
            (row,) = (await self.operator.call("dead.list"))["data"]
            await self.make(name, number=row["number"])

    async def _settings(self) -> None:
        changed = await self.make("settings.set", values={"gateway.cache.ttl_s": 60})
        await self.make("settings.undo", id=changed["change"]["id"])
        await self.operator.call("settings.set", values={"gateway.cache.ttl_s": 70})
        await self.make("settings.unset", names=["gateway.cache.ttl_s"])
        self.key = (await self.make("keys.add", name="carol"))["key"]
        await self.make("keys.rotate", name="carol")
        await self.make("keys.remove", name="carol", open=True)


def chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "word " * 100}]}


async def test_each_change_makes_one_record_of_who_what_and_why(
    cluster: Cluster, records: list[LogEvent]
) -> None:
    changes = Changes(cluster)
    await changes.all()
    assert set(changes.made) | TOLD_ELSEWHERE == CHANGES
    reasons = {f"why {name}": name for name in changes.made}
    told = [event for event in records if event.data["reason"] in reasons]
    assert [event.data["action"] for event in told] == changes.made
    assert {event.caller for event in told} == {"auditor"}
    assert all({"target", "before", "after"} <= event.data.keys() for event in told)
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="test")
    page = await LogReader(bus).page(LogFilter(kinds=(LogKind.ADMIN,)), limit=1000)
    await bus.close()
    kept = [stored.event for stored in reversed(page.events) if stored.event.data["reason"] in reasons]
    assert [event.data["action"] for event in kept] == changes.made
    assert changes.key
    assert changes.key not in json.dumps([event.model_dump(mode="json") for event in kept])


@pytest.mark.parametrize("name", ["", "olga@desk"])
async def test_a_job_that_an_operator_cancels_by_its_own_operation_makes_a_record_once(
    cluster: Cluster, records: list[LogEvent], name: str
) -> None:
    async with aiohttp.ClientSession(cluster.url) as http:
        async with http.post("/v1/jobs", json=chat("slow")) as answer:
            job = (await answer.json())["id"]
        bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="test")
        for _ in range(2):
            await jobs_call(bus, "cancel", {"id": job}, {OPERATOR: name, REASON: "stale"} if name else None)
        await bus.close()
        (told,) = [event for event in records if event.name == EVENT]
        assert (told.caller, told.run, told.data["action"]) == (name or "nats", job, "jobs.cancel")
        assert (told.data["target"], told.data["reason"]) == (f"job {job}", "stale" if name else "")
        assert (told.data["before"]["state"] in ("queued", "running"), told.data["after"]) == (
            True,
            {"state": "cancelled"},
        )
        async with http.post("/v1/jobs", json=chat("slow")) as answer:
            own = (await answer.json())["id"]
        async with http.delete(f"/v1/jobs/{own}") as answer:
            assert (await answer.json())["status"] == "cancelled"
    assert [event for event in records if event.name == EVENT] == [told]


async def test_a_change_whose_record_cannot_be_stored_says_so(
    records: list[LogEvent], own_nats: RunningNats
) -> None:
    bus = await Bus.connect(BusSettings(url=own_nats.url), name="test")  # of a server without streams

    async def change(request: ChangeRequest, call: CallContext) -> Changed:
        return Changed(target="x", before=1, after=2, body={})

    handle = Audit(bus).handler("test.change", change)
    call = CallContext(caller="me", header=lambda name: "")
    with pytest.raises(RecordNotStored, match="the change was made, and its audit record could not be"):
        await handle(ChangeRequest(reason="why"), call)
    assert [event.name for event in records] == [EVENT]
    await bus.close()


async def test_a_change_that_is_cancelled_or_meets_a_defect_is_recorded_as_failed(
    cluster: Cluster, records: list[LogEvent]
) -> None:
    """A deadline passes, or a gateway stops: the change may have had an effect."""
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="test")
    begun = asyncio.Event()

    async def waits(request: ChangeRequest, call: CallContext) -> Changed:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def fails(request: ChangeRequest, call: CallContext) -> Changed:
        raise KeyError("a defect")

    call = CallContext(caller="me", header=lambda name: "")
    handling = asyncio.ensure_future(Audit(bus).handler("test.waits", waits)(ChangeRequest(reason="w"), call))
    await begun.wait()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    with pytest.raises(KeyError):
        await Audit(bus).handler("test.fails", fails)(ChangeRequest(reason="f"), call)
    page = await LogReader(bus).page(LogFilter(kinds=(LogKind.ADMIN,)), limit=2)
    await bus.close()
    kept = [(each.event.data["action"], each.event.data["error"]) for each in page.events]
    assert kept == [("test.fails", "KeyError"), ("test.waits", "the call was cancelled before its end")]
    assert [event.data["action"] for event in records] == ["test.waits", "test.fails"]


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_record_is_stored_once_although_its_call_is_cancelled(
    cluster: Cluster, records: list[LogEvent], monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="test")
    sent = asyncio.Event()

    async def slow(*parts: Any) -> None:
        first = not sent.is_set()
        if arrived or not first:
            await enqueue(*parts)
        if first:
            sent.set()
            await asyncio.Event().wait()

    async def change(request: ChangeRequest, call: CallContext) -> Changed:
        return Changed(target="x", before=1, after=2, body={})

    monkeypatch.setattr("actors.admin.audit.enqueue", slow)
    call = CallContext(caller="me", header=lambda name: "")
    handling = asyncio.ensure_future(
        Audit(bus).handler(f"test.once-{arrived}", change)(ChangeRequest(), call)
    )
    await sent.wait()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    page = await LogReader(bus).page(LogFilter(kinds=(LogKind.ADMIN,)), limit=1000)
    await bus.close()
    assert [each.event.data["action"] for each in page.events].count(f"test.once-{arrived}") == 1
    assert [event.data["action"] for event in records] == [f"test.once-{arrived}"]
