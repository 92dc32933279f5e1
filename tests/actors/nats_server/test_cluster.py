"""What stands before a server joins others: its addresses, its name, and the store it may use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from actors.bus.bus import Bus, BusSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply, call_api, replicate
from actors.nats_server import ClusterMismatch, EmbeddedNats, NatsServerSettings
from actors.nats_server.cluster import is_member, prepare_store, server_name, standalone_folder
from actors.nats_server.files import ServerFiles
from actors.nats_server.settings import address
from orchestration.errors import DeadlineExceeded, NoResponders
from tests.fixtures.jetstream import declare_queue
from tests.fixtures.machines import free_ports


@pytest.mark.parametrize(
    ("said", "meant"),
    [("two", "two:6222"), ("two:7", "two:7"), ("[::1]", "[::1]:6222"), ("[::1]:7", "[::1]:7")],
)
def test_an_address_gets_the_usual_port_unless_it_has_one(said: str, meant: str) -> None:
    assert address(said) == meant


@pytest.mark.parametrize("said", ["", ":7", "two:x", "two:0", "two:70000", "::1", "nats://two:6222"])
def test_what_is_no_address_is_refused_in_the_settings(said: str) -> None:
    with pytest.raises(ValidationError, match="not HOST or HOST:PORT"):
        NatsServerSettings(join=(said,))


def test_the_name_of_a_server_is_kept_in_its_data_folder_and_differs_from_others(tmp_path: Path) -> None:
    names = []
    for folder in ("one", "two", "one"):
        files = ServerFiles(tmp_path / folder)
        files.prepare()
        names.append(server_name(NatsServerSettings(data=tmp_path / folder), files))
    assert names[0] == names[2] != names[1]
    assert server_name(NatsServerSettings(name="mine"), ServerFiles(tmp_path)) == "mine"


def test_a_server_that_others_cannot_reach_does_not_join_them(tmp_path: Path) -> None:
    settings = NatsServerSettings(data=tmp_path, join=("10.0.0.2",))
    with pytest.raises(ClusterMismatch, match="ORCHESTRA_NATS_SERVER__HOST"):
        prepare_store(settings, ServerFiles(tmp_path))


async def test_the_store_of_a_lone_server_is_put_aside_once_before_it_joins(tmp_path: Path) -> None:
    alone = NatsServerSettings(data=tmp_path)
    async with EmbeddedNats(alone) as server:
        bus = await Bus.connect(BusSettings(url=server.url), name="test")
        await apply(bus, shipped_declaration())
        await bus.close()
    files = ServerFiles(tmp_path)
    joining = NatsServerSettings(data=tmp_path, join=("127.0.0.1",))
    for _ in range(2):
        prepare_store(joining, files)
        assert list(files.store.iterdir()) == []
        assert (ServerFiles(standalone_folder(files)).store / "$G" / "streams" / "RUNS").is_dir()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedNats, EmbeddedNats]]:
    """Two servers that joined each other."""
    ports = free_ports(2)
    servers = [
        EmbeddedNats(
            NatsServerSettings(
                data=tmp_path / str(port),
                name=f"server{port}",
                cluster_port=port,
                join=(f"127.0.0.1:{other}",),
            )
        )
        for port, other in (ports, ports[::-1])
    ]
    async with servers[0] as one, servers[1] as two:
        yield one, two


async def test_two_servers_keep_streams_once_and_refuse_a_third_replica(
    pair: tuple[EmbeddedNats, EmbeddedNats], tmp_path: Path
) -> None:
    bus = await Bus.connect(BusSettings(url=pair[0].url), name="test")
    async with asyncio.timeout(30):
        while True:
            try:
                await bus.request("$JS.API.INFO", timeout=1)
                break
            except (NoResponders, DeadlineExceeded):  # no leader yet
                await asyncio.sleep(0.05)
    await declare_queue(bus, "work")
    assert not await replicate(bus, ["work", "absent"], 3)
    info = await call_api(bus, "STREAM.INFO.work")
    assert info["config"]["num_replicas"] == 1
    assert await replicate(bus, ["work"], 1)
    await bus.close()
    assert is_member(pair[0].files)
