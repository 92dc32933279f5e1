from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from pathlib import Path

import pytest
import uvloop

from actors.nats_server import EmbeddedNats, NatsServerError, NatsServerSettings, find_running
from tests.fixtures.eventually import eventually


def greeting(url: str) -> bytes:
    host, port = url.removeprefix("nats://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        return connection.recv(4096)


def environment_of(pid: int | None) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


async def restarted(server: EmbeddedNats, times: int) -> None:
    await eventually(lambda: server.restarts >= times and server.pid is not None)


async def test_it_takes_clients_when_entered_and_refuses_them_when_left(tmp_path: Path) -> None:
    async with EmbeddedNats(NatsServerSettings(data=tmp_path)) as server:
        url = server.url
        assert b'"jetstream":true' in greeting(url)
        assert find_running(tmp_path) == {"pid": os.getpid(), "server_pid": server.pid, "url": url}
    with pytest.raises(ConnectionRefusedError):
        greeting(url)
    assert find_running(tmp_path) is None


async def test_a_given_port_and_a_folder_with_spaces_and_quotes_are_used(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    data = tmp_path / 'a "quoted" folder'
    async with EmbeddedNats(NatsServerSettings(data=data, port=port)) as server:
        assert server.url == f"nats://127.0.0.1:{port}"
        assert (data / "nats" / "jetstream").is_dir()
        assert b"Server is ready" in (data / "nats" / "server.log").read_bytes()


async def test_it_runs_with_the_memory_settings_that_were_given(tmp_path: Path) -> None:
    settings = NatsServerSettings(data=tmp_path, gc_percent=55, memory_limit_bytes=100 * 2**20)
    async with EmbeddedNats(settings) as server:
        environment = environment_of(server.pid)
        assert {b"GOGC=55", b"GOMEMLIMIT=104857600B"} <= set(environment)


async def test_it_comes_back_on_its_port_after_a_kill(tmp_path: Path) -> None:
    async with EmbeddedNats(NatsServerSettings(data=tmp_path)) as server:
        url, first = server.url, server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await restarted(server, 1)
        assert server.url == url
        assert server.pid != first
        assert b'"jetstream":true' in greeting(url)


async def test_a_server_that_dies_too_often_stays_down_and_logs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = NatsServerSettings(data=tmp_path, max_restarts=2, first_backoff_s=0.01)
    async with EmbeddedNats(settings) as server:
        watching = asyncio.create_task(server.watch())
        for death in range(3):
            await restarted(server, death)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await eventually(lambda: server.pid is None)
        with pytest.raises(NatsServerError, match=r"died more than max_restarts 2 times within 60 s"):
            await asyncio.wait_for(watching, 30)
    assert [record for record in caplog.records if record.levelno == logging.CRITICAL]


async def test_a_port_taken_while_the_server_is_down_counts_as_another_failure(tmp_path: Path) -> None:
    settings = NatsServerSettings(data=tmp_path, max_restarts=1, first_backoff_s=0.2)
    async with EmbeddedNats(settings) as server:
        assert server.pid is not None
        port = int(server.url.rsplit(":", 1)[1])
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: server.pid is None)
        with socket.create_server(("127.0.0.1", port)):
            with pytest.raises(NatsServerError, match=f"port {port} on 127.0.0.1 is already in use"):
                await asyncio.wait_for(server.watch(), 30)


async def test_a_server_that_ignores_sigterm_is_killed_within_the_stop_timeout(tmp_path: Path) -> None:
    async with EmbeddedNats(NatsServerSettings(data=tmp_path, stop_timeout_s=0.2)) as server:
        assert server.pid is not None
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_an_error_inside_still_stops_the_server(tmp_path: Path) -> None:
    server = EmbeddedNats(NatsServerSettings(data=tmp_path))

    async def fail_inside() -> None:
        async with server:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_inside()
    with pytest.raises(ConnectionRefusedError):
        greeting(server.url)


def test_it_restarts_and_stops_under_uvloop_too(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with EmbeddedNats(NatsServerSettings(data=tmp_path)) as server:
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await restarted(server, 1)
            assert greeting(server.url).startswith(b"INFO")
            return server.url

    url = uvloop.run(scenario())
    with pytest.raises(ConnectionRefusedError):
        greeting(url)
