"""The overview of a cluster: what `orchestra status` and `orchestra top` show."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import select
import subprocess
import sys
import time

import pytest
from rich.console import Console

from actors.admin.overview import OverviewReader
from actors.admin.overview_rows import NodeRow, Overview, ProcessRow, ServedModelRow, Traffic
from actors.bus.nats_servers import ServerRows
from actors.cli.overview_picture import Shape, draw_overview
from actors.config.hot_settings import HotSettings
from actors.launch.observability import observed
from actors.settings import Settings
from actors.telemetry.identity import ProcessIdentity
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import local_cluster
from tests.fixtures.nats import RunningNats

NO_SERVERS = ServerRows([], 1, [])


def drawn(overview: Overview, *, live: bool = False, rows: int | None = None, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(draw_overview(overview, Shape.of(width, live=live, rows=rows)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_an_overview_shows_nodes_models_and_what_is_missing(own_nats: RunningNats) -> None:
    async with local_cluster(own_nats.url) as cluster:
        reader = OverviewReader(cluster.bus)
        empty = await reader.read()
        assert any("no node takes work" in warning for warning in empty.warnings)
        assert "! no node takes work" in drawn(empty)
        await cluster.node("n1", slots=4)
        await cluster.dispatcher()
        overview = await reader.read(with_metrics=False)
        assert [(node.id, node.state, node.slots) for node in overview.nodes] == [("n1", "serving", 4)]
        assert [(model.name, model.nodes, model.waiting) for model in overview.models] == [
            (cluster.model, 1, 0)
        ]
        assert not any("no node" in warning for warning in overview.warnings)
        assert any("no gateway is running" in warning for warning in overview.warnings)
        assert Overview.model_validate_json(overview.model_dump_json()) == overview
        text = drawn(overview)
        assert "1 node · 1 model · 0 of 4 slots busy" in text
        assert cluster.model in text


async def test_rates_come_with_the_second_reading(own_nats: RunningNats) -> None:
    async with local_cluster(own_nats.url) as cluster:
        await cluster.node("n1")
        await cluster.dispatcher()
        identity = ProcessIdentity.of_this_process("dispatcher")
        async with observed(cluster.bus, HotSettings(Settings()), identity):
            reader = OverviewReader(cluster.bus)
            first = await reader.read()
            assert first.traffic is None
            assert first.models[0].traffic is None
            for _ in range(3):
                await cluster.ask(cluster.generation(tokens=3))
            second = await reader.read()
            traffic = second.models[0].traffic
            assert traffic is not None
            assert traffic.requests_per_s > 0
            assert traffic.output_tokens_per_s == pytest.approx(3 * traffic.requests_per_s)
            assert traffic.error_share == 0
            assert traffic.first_token_p95_s is not None
            assert [process.id for process in second.processes] == [identity.id]
            assert second.processes[0].cpu_share is not None
            assert "tokens/s" in drawn(second, live=True)


async def test_generations_that_wait_for_a_model_that_no_node_serves_are_mentioned(
    own_nats: RunningNats,
) -> None:
    async with local_cluster(own_nats.url) as cluster:
        asking = asyncio.ensure_future(cluster.ask(cluster.generation()))
        reader = OverviewReader(cluster.bus)

        async def mentioned() -> bool:
            found = (await reader.read(with_metrics=False)).warnings
            return f"no node serves {cluster.model}, and its queue has 1 waiting" in found

        await eventually(mentioned)
        asking.cancel()


def test_a_picture_shows_the_busiest_models_and_says_how_many_are_left_out() -> None:
    models = tuple(
        ServedModelRow(
            name=f"m{number:02}",
            kind="chat",
            nodes=1,
            loaded=1,
            running=0,
            slots=1,
            waiting=5 if number == 41 else 0,
            traffic=Traffic(requests_per_s=9.0 if number == 7 else 0.0),
        )
        for number in range(60)
    )
    node = NodeRow(id="n1", state="serving", backend="echo", models=(), running=1, slots=1)
    overview = Overview(
        at=0.0, nats_url="nats://x", nodes=(node,), models=models, queues=(), processes=(), nats=NO_SERVERS
    )
    text = drawn(overview, live=True, rows=2)
    assert "m07" in text
    assert "m41" in text
    assert "… and 58 more" in text
    assert "m00" not in text


def test_a_picture_for_a_narrow_terminal_has_a_line_for_each_row() -> None:
    """Names are cut, and numbers are not; what is not needed at a glance is left out."""
    many = tuple(f"a-model-with-a-long-name-{number}" for number in range(9))
    traffic = Traffic(
        requests_per_s=12.5, output_tokens_per_s=1234.0, first_token_p50_s=0.091, error_share=0.02
    )
    model = ServedModelRow(
        name=many[0], kind="chat", nodes=12, loaded=3, running=7, slots=96, waiting=123, traffic=traffic
    )
    node = NodeRow(
        id="node-in-rack-" + "7" * 40, state="draining", backend="echo", models=many, running=0, slots=96
    )
    process = ProcessRow(
        id="gateway-host-1", role="gateway", host="host", version="1", uptime_s=5, url="http://h:1"
    )
    overview = Overview(
        at=0.0,
        nats_url="nats://x",
        nodes=(node,),
        models=(model,),
        queues=(),
        processes=(process,),
        nats=NO_SERVERS,
    )
    lines = drawn(overview, live=True, width=80).splitlines()
    assert max(len(line) for line in lines) <= 80
    (row,) = (line.split() for line in lines if line.startswith("a-model"))
    assert row[1:] == ["3/12", "7/96", "123", "0", "ms", "12.5", "1.23e+03", "91", "ms", "2.0%"]
    assert [line.split()[1] for line in lines if line.startswith("node-in-rack")] == ["draining"]
    assert [line.split()[:2] for line in lines if line.startswith("gateway")] == [
        ["gateway-host-1", "gateway"]
    ]
    assert not any("http://" in line or line.startswith(" ") for line in lines)


def test_top_without_a_terminal_says_what_to_use(own_nats: RunningNats) -> None:
    command = [sys.executable, "-m", "actors.cli", "top", "--nats", own_nats.url]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert "use --once or --json" in ended.stderr


async def declare(url: str) -> None:
    async with local_cluster(url):
        """Its streams and buckets stay."""


def test_top_on_a_terminal_draws_until_q_is_typed(own_nats: RunningNats) -> None:
    asyncio.run(declare(own_nats.url))
    own, other = pty.openpty()
    command = [sys.executable, "-m", "actors.cli", "top", "--nats", own_nats.url, "--interval", "0.5"]
    process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, close_fds=True)
    os.close(other)
    try:
        seen, until = b"", time.monotonic() + 60
        while b"no node takes work" not in seen and time.monotonic() < until:
            if select.select([own], [], [], 1)[0]:
                seen += os.read(own, 65_536)
        assert b"no node takes work" in seen
        os.write(own, b"q")
        while process.poll() is None and time.monotonic() < until:
            if select.select([own], [], [], 0.1)[0]:
                try:
                    os.read(own, 65_536)
                except OSError:  # the terminal has no process any more
                    break
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(20)
        os.close(own)
