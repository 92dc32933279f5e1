"""Junk on every subject that the cluster listens to: each piece is refused or dropped, and nothing breaks."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from actors.agents.active_runs import CANCEL, LIST
from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings
from actors.bus.subjects import CommandAddress
from actors.dispatcher.waiting_control import END_WAITING
from actors.telemetry.telemetry import INTERNAL_ERRORS
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually

REFERENCE = (Path(__file__).parents[3] / "docs/reference/nats.md").read_text()
NAMES = {
    "priority": "standard",
    "model": "echo",
    "pattern": "single",
    "id": "n1",
    "cluster": "local",
    "name": "research",
    "process": "p1",
    "client": "c1",
    "caller": "c2",
}
BODIES = [
    b"",
    b"null",
    b"[]",
    b"7",
    b'"text"',
    b"{",
    b"\xff\xfe\x00",
    b"[" * 5_000,
    b"NaN",
    b"x" * 70_000,
    json.dumps({"model": 7, "messages": "x", "id": None, "limit": -1, "before": 2**63}).encode(),
    json.dumps({"model": "echo", "messages": [{"role": "user", "content": {"a": []}}]}).encode(),
    json.dumps({"queue": "a\nb", "node": "*", "reason": "x" * 9_000, "settings": {"a": 1}}).encode(),
    json.dumps({"id": "a b", "name": [], "keys": {}, "seq": "x", "start": 1e308, "kind": "run"}).encode(),
]
HEADERS = [
    {},
    {"Orchestra-Id": "{'a': 1} *.>", "Orchestra-Deadline": "soon", "Orchestra-Attempt": "1e999"},
    {"Orchestra-Caller": "x" * 5_000, "Orchestra-Needs": "[" * 4_000, "traceparent": "00-zz-1-01"},
    {"Orchestra-Direct-Error": "{", "Orchestra-Direct-Moves": "9" * 5_000, "Orchestra-Writer": "é"},
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster([("n1", EchoBackend(EchoSettings(models=("echo",))))], agents=True) as running:
        yield running


async def services(bus: Bus) -> set[str]:
    """The subjects of all endpoints, as NATS discovers them."""
    found: set[str] = set()
    inbox = f"{bus.inbox}.info"
    await bus.subscribe(
        inbox, lambda message: found.update(each["subject"] for each in json.loads(message.data)["endpoints"])
    )
    await bus.publish("$SRV.INFO", reply=inbox)
    await eventually(lambda: "orchestra.chat" in found and any("admin" in each for each in found))
    return found


def documented() -> set[str]:
    """The subjects of the reference and a key of each bucket, but for the request that drains the node."""
    table, buckets = REFERENCE.partition("## Subjects")[2], REFERENCE.partition("| bucket |")[2]
    subjects = re.findall(r"^\| `([^`]+)` \|", table.partition("## Headers")[0], re.M)
    names = re.findall(r"^\| `([^`]+)` \|", buckets.partition("\n## ")[0], re.M)
    found = {
        re.sub(r"<(\w+)>", lambda name: NAMES.get(name[1], "x"), each).replace("*", "x") for each in subjects
    }
    assert len(found) > 30
    assert len(names) > 10
    return (found | {f"$KV.{name}.junk" for name in names}) - {"node.n1.drain"}


def unexpected() -> dict[str, float]:
    """The unexpected exceptions of this process so far, by place."""
    found = [sample for metric in INTERNAL_ERRORS.collect() for sample in metric.samples]
    return {each.labels["where"]: each.value for each in found if each.name.endswith("_total")}


async def send_junk(bus: Bus) -> None:
    """Each body to each subject, by turns with and without a reply subject, and with each kind of header."""
    verbs = (LIST, CANCEL, END_WAITING, "breakers.list", "breakers.reset", "cache.show")
    commands = {CommandAddress(verb).subject for verb in verbs}
    for subject in sorted(await services(bus) | documented() | commands):
        for number, body in enumerate(BODIES):
            reply = f"{bus.inbox}.junk" if number % 2 else ""
            await bus.publish(subject, body, reply=reply, headers=HEADERS[number % len(HEADERS)])
        await bus.flush()


async def test_junk_on_every_subject_breaks_nothing(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    before = unexpected()
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="junk")
    try:
        await send_junk(bus)
    finally:
        await bus.close()
    async with aiohttp.ClientSession(cluster.url) as http:
        for model in ("echo", "orchestra/single"):
            chat = {"model": model, "messages": [{"role": "user", "content": "still here"}]}
            async with http.post("/v1/chat/completions", json=chat) as answer:
                assert answer.status == 200
        async with http.get("/v1/jobs") as answer:
            assert answer.status == 200
    assert unexpected() == before
    assert [record.getMessage() for record in caplog.records if record.name.startswith("actors.bus")] == []
