"""Proof that a server never outlives its parent: real parents, killed with SIGKILL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from actors.child_server.process import tied_to_parent
from actors.nats_server import EmbeddedNats, NatsServerSettings, find_running

_ROOT = Path(__file__).resolve().parents[3]

_PARENT = """
import asyncio, json, os, sys, threading
from pathlib import Path
from unittest import mock
import uvloop
from actors.nats_server import EmbeddedNats, NatsServerSettings
from actors.child_server import process

tie, loop, ending = sys.argv[2:5]
process.USE_PIPE = tie == "pipe"

async def main():
    async with EmbeddedNats(NatsServerSettings(data=Path(sys.argv[1]))) as server:
        print(json.dumps({"pid": server.pid, "url": server.url}), flush=True)
        if ending == "wait":
            await asyncio.Event().wait()
        if ending == "exit":
            sys.stdin.readline()
            os._exit(3)

uvloop.run(main()) if loop == "uvloop" else asyncio.run(main())
"""


@dataclass(slots=True)
class Parent:
    process: subprocess.Popen[str]
    server: psutil.Process
    url: str


def start_parent(data: Path, tie: str, *, loop: str = "asyncio", ending: str = "wait") -> Parent:
    process = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(data), tie, loop, ending],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    return Parent(process, psutil.Process(facts["pid"]), facts["url"])


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until_gone(process: psutil.Process, within_s: float = 30.0) -> None:
    """Wait until the process is gone."""
    start = time.monotonic()
    while not gone(process):
        assert time.monotonic() - start < within_s, f"{process} was left behind"
        time.sleep(0.001)


@pytest.fixture
def parents() -> Iterator[list[Parent]]:
    started: list[Parent] = []
    yield started
    for parent in started:
        parent.process.kill()
        parent.process.wait(10)
        for pipe in (parent.process.stdin, parent.process.stdout):
            if pipe is not None:
                pipe.close()


TIES = [pytest.param("kernel", marks=pytest.mark.skipif(sys.platform != "linux", reason="prctl")), "pipe"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("tie", TIES)
async def test_the_server_is_gone_after_sigkill_of_its_parent(
    tmp_path: Path, parents: list[Parent], tie: str, loop: str
) -> None:
    parent = start_parent(tmp_path, tie, loop=loop)
    parents.append(parent)
    assert not gone(parent.server)
    parent.process.send_signal(signal.SIGKILL)
    until_gone(parent.server)
    # and its data are free for the next one at once
    async with EmbeddedNats(NatsServerSettings(data=tmp_path)) as next_one:
        assert next_one.pid != parent.server.pid


@pytest.mark.parametrize("tie", TIES)
def test_the_server_is_gone_after_its_parent_left_without_cleaning_up(
    tmp_path: Path, parents: list[Parent], tie: str
) -> None:
    parent = start_parent(tmp_path, tie, ending="exit")
    parents.append(parent)
    assert parent.process.stdin is not None
    parent.process.stdin.close()
    assert parent.process.wait(10) == 3
    until_gone(parent.server)


def test_the_watching_shell_goes_with_a_server_that_was_stopped_in_good_order(
    tmp_path: Path, parents: list[Parent]
) -> None:
    parent = start_parent(tmp_path, "pipe")
    parents.append(parent)
    (watcher,) = parent.server.children()
    assert watcher.name() == "sh"
    parent.server.terminate()  # the parent sees it end, quiets the watcher, and starts another
    until_gone(watcher)
    assert parent.process.poll() is None


def test_a_server_whose_parent_is_gone_already_does_not_start(tmp_path: Path) -> None:
    started = tmp_path / "started"
    line = tied_to_parent(["/usr/bin/touch", str(started)])
    line[4] = "1"  # as if the parent had died between the fork and the request to the kernel
    assert subprocess.run(line, check=False).returncode == 1
    assert not started.exists()


def test_a_server_left_behind_all_the_same_keeps_its_data_locked(
    tmp_path: Path, parents: list[Parent]
) -> None:
    parent = start_parent(tmp_path, "pipe")
    parents.append(parent)
    for watcher in parent.server.children():
        watcher.kill()  # sabotage: now nothing ties the server to its parent
        until_gone(watcher)
    parent.process.kill()
    parent.process.wait(10)
    try:
        assert not gone(parent.server)
        facts = find_running(tmp_path)
        assert facts is not None
        assert facts["server_pid"] == parent.server.pid
    finally:
        parent.server.kill()
    # the kernel closes the last files of a process a moment after it calls it dead
    until = time.monotonic() + 30
    while find_running(tmp_path) is not None:
        assert time.monotonic() < until
        time.sleep(0.001)
