"""Everything in one process is killed, and started again from its folder: its jobs go on."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from actors.bus.bus import Bus, BusSettings
from tests.fixtures.jetstream import stored_in
from tests.fixtures.machines import free_ports
from tests.fixtures.process import Process, orchestra
from tests.scenarios.faults.job_batch import JobBatch


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


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


async def test_jobs_go_on_after_orchestra_up_is_killed_and_started_in_the_same_folder(
    stack: ExitStack, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    http_port, nats_port = free_ports(2)
    words = ("up", "--no-model", "--data", str(data), "--http", f"127.0.0.1:{http_port}")

    async def up() -> tuple[Process, str]:
        process = stack.enter_context(orchestra(*words, ORCHESTRA_NATS_SERVER__PORT=str(nats_port)))
        line = await asyncio.to_thread(process.wait_for, "Orchestra is ready")
        found = re.search(r"nats://\S+", line)
        assert found is not None
        return process, found[0]

    first, nats_url = await up()
    node = ("node", "--backend", "echo", "--speed", "20", "--slots", "12", "--nats", nats_url)
    beside = stack.enter_context(orchestra(*node, "--data", str(tmp_path / "node")))
    await asyncio.to_thread(beside.wait_for, "Orchestra ")
    jobs = JobBatch(lambda: [f"http://127.0.0.1:{http_port}"], count=60)
    await jobs.submit()
    first.send(signal.SIGKILL)
    await asyncio.to_thread(first.wait)
    await up()
    bus = await Bus.connect(BusSettings(url=nats_url), name="tests")
    try:
        await jobs.check_recorded_once(bus)
        assert await stored_in(bus, "RUNS") == 0
    finally:
        await bus.close()
    await asyncio.to_thread(the_command_line_knows_of_jobs, data)


def the_command_line_knows_of_jobs(data: Path) -> None:
    job_id = command(
        data, "submit", "from the shell", "--pattern", "single", "--model", "echo", "--max-tokens", "3"
    ).strip()
    assert command(data, "wait", job_id).startswith("from the shell")
    assert json.loads(command(data, "get", job_id))["status"] == "succeeded"
    assert job_id in command(data, "list", "--limit", "1")
    assert command(data, "cancel", job_id).strip() == "succeeded"
    assert command(data, "dead", "list").strip() == "none"
