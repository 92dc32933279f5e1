"""Jobs while processes are killed at different moments: what was accepted is recorded, once."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from actors.runtime.bus import Bus, BusSettings
from tests.fixtures.jetstream import api, stored_in
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import Process, orchestra
from tests.jobs.client import JobsClient, chat

WORDS = "ten words that take half a second to be echoed"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Crowd:
    """Submits jobs, each under a key of its own, as often as it takes to be told that it was accepted."""

    def __init__(self, url: str) -> None:
        self.client = JobsClient(url)
        self.accepted: dict[str, str] = {}
        """Job ids by key."""

    def submit(self, key: str, *, within_s: float = 60) -> None:
        text = f"{WORDS} {key}"
        job = self._patiently(
            lambda: self.client.submit(chat(text, max_tokens=len(text.split())), key=key), within_s
        )
        self.accepted[key] = job["id"]

    def submit_all(self, keys: list[str]) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self.submit, keys))

    def statuses(self) -> Counter[str]:
        """Of all jobs, by the list."""
        found: Counter[str] = Counter()
        before = 0
        while True:
            page = self._get(f"/v1/jobs?limit=100&before={before}")
            found.update(job["status"] for job in page["data"])
            before = page["next"]
            if not before:
                return found

    def until_done(self, count: int, *, within_s: float = 60) -> None:
        """Wait until so many jobs have succeeded."""
        until = time.monotonic() + within_s
        while (found := self.statuses())["succeeded"] < count:
            assert not found["failed"] + found["dead"] + found["cancelled"], found
            assert time.monotonic() < until, f"not {count} done within {within_s} s: {found}"
            time.sleep(0.1)

    def check_answers(self) -> None:
        """Each job has the answer to its own question."""
        for key, job_id in self.accepted.items():
            job = self._get(f"/v1/jobs/{job_id}")
            assert job["status"] == "succeeded", job
            assert job["result"]["choices"][0]["message"]["content"] == f"{WORDS} {key}"

    def _get(self, path: str) -> dict[str, Any]:
        return self._patiently(lambda: self.client.call("GET", path), 60)

    @staticmethod
    def _patiently(ask: Callable[[], Any], within_s: float) -> dict[str, Any]:
        until = time.monotonic() + within_s
        while True:
            try:
                answer = ask()
                if answer.status < 300:
                    body: dict[str, Any] = answer.body
                    return body
                assert answer.status >= 429, answer
                said: object = answer
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                said = error
            assert time.monotonic() < until, f"still refused after {within_s} s: {said}"
            time.sleep(0.1)


async def hurry(url: str) -> None:
    """Shorten the ack_wait of all consumers: what a killed process held comes back after a second."""
    bus = await Bus.connect(BusSettings(url=url), name="hurry")
    try:
        for stream in ("RUNS", "GENERATIONS"):
            for consumer in (await api(bus, f"CONSUMER.LIST.{stream}"))["consumers"]:
                config = consumer["config"] | {"ack_wait": 1_000_000_000}
                body = {"stream_name": stream, "config": config}
                await api(bus, f"CONSUMER.CREATE.{stream}.{config['name']}", body)
    finally:
        await bus.close()


async def recorded(url: str) -> tuple[int, int]:
    """Results there are, and runs still in the queue."""
    bus = await Bus.connect(BusSettings(url=url), name="counting")
    try:
        return await stored_in(bus, "KV_results"), await stored_in(bus, "RUNS")
    finally:
        await bus.close()


@pytest.mark.timeout(150)
def test_every_job_accepted_is_recorded_once_whatever_role_is_killed(
    own_nats: RunningNats, stack: ExitStack, tmp_path: Path
) -> None:
    port = free_port()
    common = ("--nats", own_nats.url, "--data", str(tmp_path))
    echo = ("node", "--backend", "echo", "--speed", "20", "--slots", "12")
    commands: dict[str, tuple[str, ...]] = {
        "node": (*echo, "--id", "first", *common),
        "agents": ("agents", *common),
        "dispatcher": ("dispatcher", *common),
        "gateway": ("gateway", "--http", f"127.0.0.1:{port}", *common),
    }
    running: dict[str, Process] = {}

    def start(role: str) -> None:
        running[role] = stack.enter_context(orchestra(*commands[role]))

    def kill(role: str) -> None:
        running[role].send(signal.SIGKILL)
        running[role].wait()

    for role in commands:
        start(role)
    for role in commands:
        running[role].wait_for("Orchestra ")
    crowd = Crowd(f"http://127.0.0.1:{port}")
    with ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(crowd.submit_all, [f"k{number}" for number in range(120)])
        commands["node"] = (*echo, "--id", "second", *common)
        for done, role in ((5, "gateway"), (15, "agents"), (25, "dispatcher"), (35, "node")):
            crowd.until_done(done)
            kill(role)
            start(role)
        for process in running.values():
            if process.process.poll() is None and "Orchestra " not in process.said:
                process.wait_for("Orchestra ")
        asyncio.run(hurry(own_nats.url))
        submitting.result(60)
    assert len(set(crowd.accepted.values())) == 120
    crowd.until_done(120)
    crowd.check_answers()
    results, left = asyncio.run(recorded(own_nats.url))
    assert (results, left) == (120, 0)


def command(folder: Path, *words: str) -> str:
    """The output of `orchestra jobs WORDS`, in the cluster of that data folder."""
    done = subprocess.run(
        [sys.executable, "-m", "actors.cli", "jobs", *words, "--data", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.timeout(150)
def test_jobs_outlive_the_kill_of_orchestra_up_and_go_on_from_the_same_folder(
    stack: ExitStack, tmp_path: Path
) -> None:
    data, http_port, nats_port = tmp_path / "data", free_port(), free_port()

    def up() -> tuple[Process, str]:
        process = stack.enter_context(
            orchestra(
                "up",
                "--no-model",
                "--data",
                str(data),
                "--http",
                f"127.0.0.1:{http_port}",
                ORCHESTRA_NATS_SERVER__PORT=str(nats_port),
            )
        )
        found = re.search(r"nats://\S+", process.wait_for("Orchestra is ready"))
        assert found is not None
        return process, found[0]

    first, nats_url = up()
    node = ("node", "--backend", "echo", "--speed", "20", "--slots", "12", "--nats", nats_url)
    stack.enter_context(orchestra(*node, "--data", str(tmp_path / "node"))).wait_for("Orchestra ")
    crowd = Crowd(f"http://127.0.0.1:{http_port}")
    crowd.submit_all([f"k{number}" for number in range(60)])
    crowd.until_done(5)
    first.send(signal.SIGKILL)
    first.wait()
    up()
    asyncio.run(hurry(nats_url))
    crowd.until_done(60)
    crowd.check_answers()
    assert asyncio.run(recorded(nats_url)) == (60, 0)

    job_id = command(
        data, "submit", "from the shell", "--pattern", "single", "--model", "echo", "--max-tokens", "3"
    ).strip()
    assert command(data, "wait", job_id).startswith("from the shell")
    assert json.loads(command(data, "get", job_id))["status"] == "succeeded"
    assert job_id in command(data, "list", "--limit", "1")
    assert command(data, "cancel", job_id).strip() == "succeeded"
    assert command(data, "dead", "list").strip() == "none"
