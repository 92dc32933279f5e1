from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from actors.triton import (
    BadRepository,
    TritonError,
    TritonFolderUnusable,
    TritonPortInUse,
    TritonServer,
    TritonServerSettings,
)
from actors.triton.launch import HOST, SHARED_MEMORY, memory_prefix
from tests.fixtures.eventually import eventually
from tests.fixtures.triton import RunningTriton, write_model


@pytest.fixture
def settings(tmp_path: Path) -> TritonServerSettings:
    (tmp_path / "repository").mkdir()
    return TritonServerSettings(
        data=tmp_path / "triton", repository=tmp_path / "repository", first_backoff_s=0.01
    )


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
    return body


def ready(url: str) -> bool:
    try:
        fetch(f"{url}/v2/health/ready")
    except OSError:
        return False
    return True


async def test_a_server_of_our_own_listens_on_loopback_only_and_is_gone_afterwards(
    settings: TritonServerSettings,
) -> None:
    async with TritonServer(settings) as server:
        assert re.fullmatch(r"grpc://127\.0\.0\.1:\d+", server.url)
        assert b"nv_" in await asyncio.to_thread(fetch, server.metrics_url)
        pid = server.pid
        assert pid is not None
        open_ports = [
            each.laddr for each in psutil.Process(pid).net_connections() if each.status == psutil.CONN_LISTEN
        ]
        assert len(open_ports) >= 3
        assert {each.ip.removeprefix("::ffff:") for each in open_ports} == {HOST}
    assert not psutil.pid_exists(pid)
    assert "Started GRPCInferenceService" in server.files.log.read_text()


async def test_a_server_that_is_killed_comes_back_on_the_same_ports(settings: TritonServerSettings) -> None:
    async with TritonServer(settings) as server:
        before, url = server.pid, server.http_url
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await eventually(lambda: server.restarts == 1 and ready(url), within_s=60)
        assert server.http_url == url
        assert server.pid not in (None, before)


async def test_a_server_that_dies_too_often_stays_down_with_the_end_of_its_log(
    settings: TritonServerSettings,
) -> None:
    once = settings.model_copy(update={"max_restarts": 0})
    async with TritonServer(once) as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(TritonError, match=r"(?s)max_restarts 0 .*ended with -9.*server\.log.*Started"):
            await asyncio.wait_for(server.watch(), 60)


async def test_a_missing_repository_is_refused_with_how_to_write_one(tmp_path: Path) -> None:
    nowhere = TritonServerSettings(data=tmp_path / "triton", repository=tmp_path / "nowhere")
    with pytest.raises(BadRepository, match=r"nowhere.*orchestra triton repository"):
        await TritonServer(nowhere).__aenter__()


async def test_a_folder_whose_name_triton_cannot_quote_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ada's models").mkdir()
    odd = TritonServerSettings(data=tmp_path / "triton", repository=tmp_path / "ada's models")
    with pytest.raises(BadRepository, match="apostrophe"):
        await TritonServer(odd).__aenter__()
    odd = TritonServerSettings(data=tmp_path / "ada's data", repository=tmp_path)
    with pytest.raises(BadRepository, match="apostrophe"):
        await TritonServer(odd).__aenter__()


async def test_a_port_that_is_taken_is_named(settings: TritonServerSettings) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        taken = settings.model_copy(update={"grpc_port": port})
        with pytest.raises(TritonPortInUse, match=rf"port {port} .*grpc_port.*--triton-url"):
            await TritonServer(taken).__aenter__()


async def test_two_servers_do_not_share_one_folder(settings: TritonServerSettings) -> None:
    async with TritonServer(settings):
        with pytest.raises(TritonFolderUnusable, match="--triton-url"):
            await TritonServer(settings).__aenter__()


def test_nothing_of_a_models_process_is_left_when_the_server_was_killed(
    own_triton: RunningTriton,
) -> None:
    write_model(own_triton.repository, "echo")
    own_triton.load("echo")
    (stub,) = own_triton.stubs()
    # As one that hangs: it cannot even look whether its server lives.
    os.kill(stub, signal.SIGSTOP)
    hanging = psutil.Process(stub)
    mine = f"{memory_prefix(own_triton.settings.data)}*"
    assert list(SHARED_MEMORY.glob(mine))
    own_triton.kill()
    own_triton.restart()
    assert not list(SHARED_MEMORY.glob(mine))
    hanging.wait(30)
    assert own_triton.stubs() == []


def test_a_server_does_not_outlive_the_process_that_started_it(settings: TritonServerSettings) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path; from actors.triton import *\n"
        "async def main():\n"
        "    settings = TritonServerSettings(data=Path(sys.argv[1]), repository=Path(sys.argv[2]))\n"
        "    async with TritonServer(settings) as server:\n"
        "        print(server.pid, flush=True); await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    words = [sys.executable, "-c", code, str(settings.data), str(settings.repository)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        gone = os.pidfd_open(pid)
        parent.kill()
    assert select.select([gone], [], [], 30)[0], "it is still there"
    os.close(gone)
