"""A debate over two nodes, one of them killed midway: traces, log, MongoDB and metrics tell the same, to the
token."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pymongo
import pytest

from actors.admin.metric_rates import parse_values
from actors.bus.bus import Bus, BusSettings
from actors.cluster.registry import live_nodes
from actors.runtime.processes import list_processes, metrics_of
from tests.fixtures.eventually import eventually
from tests.fixtures.mongo import RunningMongo, mongo, new_database
from tests.fixtures.process import Process, orchestra
from tests.fixtures.receiver import Receiver, attributes, failed, receiver

__all__ = ["mongo"]

MODEL = "slow"
QUESTION = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


@dataclass(slots=True)
class Running:
    """The processes of a cluster with two nodes, `a` and `b`."""

    http: str
    nats: str
    nodes: dict[str, Process]
    database: str
    told: Receiver
    bus: Bus


@asynccontextmanager
async def two_nodes(mongo: RunningMongo, folder: Path) -> AsyncIterator[Running]:
    database = new_database()
    async with receiver() as told:
        start = partial(
            orchestra,
            ORCHESTRA_TELEMETRY__OTLP_ENDPOINT=told.url,
            ORCHESTRA_TELEMETRY__EXPORT_INTERVAL_S="0.1",
            ORCHESTRA_LOGS__MONGODB__URL=mongo.url,
            ORCHESTRA_LOGS__MONGODB__DATABASE=database,
        )
        with ExitStack() as stack:
            words = ("--no-model", "--data", str(folder), "--http", "127.0.0.1:0")
            up = stack.enter_context(start("up", *words))
            ready = await asyncio.to_thread(up.wait_for, "Orchestra is ready")
            http, nats = re.findall(r"(?:http|nats)://\S+", ready)
            nodes = {
                name: stack.enter_context(
                    start(
                        *("node", "--nats", nats, "--id", name, "--backend", "echo", "--serve", MODEL),
                        *("--speed", "25", "--slots", "2"),
                    )
                )
                for name in ("a", "b")
            }
            for node in nodes.values():
                await asyncio.to_thread(node.wait_for, "serves")
            bus = await Bus.connect(BusSettings(url=nats), name="test")
            try:
                yield Running(http, nats, nodes, database, told, bus)
            finally:
                await bus.close()


async def debate(running: Running) -> tuple[str, dict[str, Any]]:
    """Stream a debate; the id of its run, and its usage. Node `b` is killed while it works for it."""
    body = {
        "model": "orchestra/debate",
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "orchestra": {"model": MODEL, "settings": {"rounds": 2}},
    }

    async def kill_b_at_work() -> None:
        async def busy() -> bool:
            return any(node.id == "b" and node.running for node in await live_nodes(running.bus))

        await eventually(busy)
        running.nodes["b"].send(signal.SIGKILL)

    killing = asyncio.create_task(kill_b_at_work())
    usage: dict[str, Any] = {}
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{running.http}/v1/chat/completions", json=body) as response:
            assert response.status == 200
            run = response.headers["X-Orchestra-Run"]
            async for line in response.content:
                if line.startswith(b"data: {"):
                    usage = json.loads(line[6:]).get("usage") or usage
    await killing
    return run, usage


def log_of(running: Running, run: str) -> list[dict[str, Any]]:
    """What `orchestra logs --run` prints."""
    command = [sys.executable, "-m", "actors.cli", "logs", "--run", run, "--json", "--nats", running.nats]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in printed.stdout.splitlines()]


def tokens_of(events: list[dict[str, Any]], name: str) -> tuple[int, int]:
    """The tokens of all events of one name, read and written."""
    data = [event["data"] for event in events if event["name"] == name]
    return sum(each["input_tokens"] for each in data), sum(each["output_tokens"] for each in data)


async def counted(running: Running, name: str) -> tuple[int, int]:
    """The tokens of a counter of all live processes, read and written."""
    directions: dict[str, float] = {}
    for process in await list_processes(running.bus):
        values = parse_values((await metrics_of(running.bus, process.id)).decode())
        for labels, value in values.get(name, {}).items():
            direction = dict(labels)["direction"]
            directions[direction] = directions.get(direction, 0) + value
    return int(directions.get("prompt", 0)), int(directions.get("completion", 0))


@pytest.fixture
def store(mongo: RunningMongo) -> Iterator[pymongo.MongoClient[dict[str, Any]]]:
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongo.url)
    yield client
    client.close()


async def test_a_debate_that_loses_a_node_is_one_tree_one_story_and_the_same_numbers_everywhere(
    mongo: RunningMongo, store: pymongo.MongoClient[dict[str, Any]], tmp_path: Path
) -> None:
    async with two_nodes(mongo, tmp_path) as running:
        run, usage = await debate(running)
        tokens = usage["prompt_tokens"], usage["completion_tokens"]

        def story() -> list[dict[str, Any]]:
            events = log_of(running, run)
            return events if any(event["name"] == "request.ended" for event in events) else []

        events = await eventually(lambda: asyncio.to_thread(story))
        (trace,) = {event["trace"] for event in events if event.get("trace")}
        tree = await running.told.whole_tree(trace, "POST /v1/chat", "invoke_workflow debate", within_s=30)
        assert tree.tokens() == tokens
        assert any(
            failed(span) and attributes(span).get("orchestra.node") == "b" for span in tree.named("attempt")
        )
        assert {attributes(span).get("orchestra.node") for span in tree.named("generate")} >= {"a"}
        assert any(event["name"] == "generation.moved" and event["node"] == "b" for event in events)
        for name in ("request.ended", "run.ended", "step.ended", "generation.ended"):
            assert tokens_of(events, name) == tokens, name

        def shipped() -> bool:
            found = store[running.database]["events"].find({"run": run})
            return sorted(each["_id"] for each in found) == sorted(event["id"] for event in events)

        await eventually(lambda: asyncio.to_thread(shipped))
        assert await counted(running, "orchestra_gateway_tokens_total") == tokens
        assert await counted(running, "orchestra_run_tokens_total") == tokens
