"""What each process tells of itself: its metrics over HTTP and NATS, and who it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import pytest
from prometheus_client import REGISTRY, Counter

from actors.bus.bus import Bus, BusSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply
from actors.bus.subjects import PROCESSES_SUBJECT, ProcessAddress
from actors.config.hot_settings import HotSettings
from actors.gateway.process import run_gateway
from actors.gateway.settings import GatewaySettings
from actors.launch.metrics_server import MetricsPortBusy
from actors.launch.observability import observed
from actors.runtime.processes import ProcessInfo, list_processes, metrics_of
from actors.runtime.system import ActorSystem
from actors.settings import Settings
from actors.telemetry.identity import ProcessIdentity
from actors.telemetry.settings import TelemetrySettings
from orchestration.errors import NoResponders
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.prometheus import complaints


async def fetch(url: str, method: str = "GET") -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
        return answer.status, answer.content_type, await answer.text()


@asynccontextmanager
async def process(
    server: RunningNats, role: str, metrics: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[Bus, ProcessInfo]]:
    """A process of that role, as far as others see it."""
    bus = await Bus.connect(BusSettings(url=server.url), name=role)
    try:
        settings = Settings(telemetry=TelemetrySettings(metrics=metrics))
        async with observed(bus, HotSettings(settings), ProcessIdentity.of_this_process(role)) as service:
            yield bus, service.describe()
    finally:
        await bus.close()


async def test_a_process_without_a_gateway_serves_its_metrics_and_probes(own_nats: RunningNats) -> None:
    async with process(own_nats, "node") as (_, info):
        status, kind, text = await fetch(info.metrics_url)
        assert (status, kind) == (200, "text/plain")
        assert 'role="node"' in text
        assert f'process="{info.id}"' in text
        assert "process_cpu_seconds_total" in text
        assert "_created" not in text
        base = info.metrics_url.removesuffix("/metrics")
        assert (await fetch(base + "/healthz"))[::2] == (200, '{"status":"ok"}')
        assert (await fetch(base + "/readyz"))[0] == 200
        assert (await fetch(base + "/metrics", "HEAD"))[::2] == (200, "")
        assert (await fetch(base + "/metrics", "POST"))[0] == 405
        assert (await fetch(base + "/admin"))[0] == 404
        own_nats.stop()
        await eventually(lambda: _status(base + "/readyz", 503))
        assert (await fetch(base + "/healthz"))[0] == 200


async def _status(url: str, wanted: int) -> bool:
    return (await fetch(url))[0] == wanted


async def test_a_busy_port_names_the_setting_and_no_address_means_no_server(nats_server: RunningNats) -> None:
    async with process(nats_server, "agents", metrics="") as (_, info):
        assert info.metrics_url == ""
    async with process(nats_server, "node") as (_, info):
        taken = urlsplit(info.metrics_url).netloc
        with pytest.raises(MetricsPortBusy, match=r"telemetry\.metrics"):
            async with process(nats_server, "dispatcher", metrics=taken):
                pass


async def test_every_process_describes_itself_and_hands_out_its_metrics_on_nats(
    own_nats: RunningNats,
) -> None:
    async with process(own_nats, "node") as (bus, node), process(own_nats, "agents") as (_, agents):
        assert [each.id for each in await list_processes(bus)] == sorted([node.id, agents.id])
        answer = await bus.request(ProcessAddress(node.id).describe)
        assert ProcessInfo.model_validate_json(answer.data) == node
        assert b"orchestra_info" in await metrics_of(bus, node.id)
        with pytest.raises(NoResponders):
            await metrics_of(bus, "no such\nprocess")
        await bus.publish(PROCESSES_SUBJECT)  # without a reply subject
        assert all((node.host, node.pid, node.version, node.started_at))


async def test_metrics_larger_than_a_message_are_compressed(own_nats: RunningNats) -> None:
    big = Counter("orchestra_test_big", "Much text " * 1_000_000)
    try:
        async with process(own_nats, "node") as (bus, node):
            text = await metrics_of(bus, node.id)
            assert len(text) > bus.max_payload
            assert text.endswith(b"\n")
    finally:
        REGISTRY.unregister(big)


async def test_a_gateway_lists_all_processes_and_serves_their_metrics(own_nats: RunningNats) -> None:
    """One address is enough to scrape a cluster."""
    async with process(own_nats, "gateway") as (bus, gateway), process(own_nats, "node") as (_, node):
        settings = GatewaySettings(http="127.0.0.1:0")
        await apply(bus, shipped_declaration())
        async with run_gateway(bus, settings, ActorSystem()) as running:
            _, _, text = await fetch(running.url + "/metrics/targets")
            targets = {each["labels"]["instance"]: each for each in json.loads(text)}
            assert set(targets) == {gateway.id, node.id}
            assert targets[node.id]["labels"]["role"] == "node"
            for each in targets.values():
                (host,) = each["targets"]
                status, kind, text = await fetch(f"http://{host}{each['labels']['__metrics_path__']}")
                assert (status, kind) == (200, "text/plain")
                assert f'process="{gateway.id}"' in text or f'process="{node.id}"' in text
            assert (await fetch(running.url + "/metrics/processes/none"))[0] == 404
            async with process(own_nats, "agents") as (_, agents):
                assert agents.id in (await fetch(running.url + "/metrics/targets"))[2]
            assert agents.id in (await fetch(running.url + "/metrics/targets"))[2]  # for a minute
            assert (await fetch(f"{running.url}/metrics/processes/{agents.id}"))[0] == 404
            own = next(each for each in await list_processes(bus) if each.id == gateway.id)
            assert own.metrics_url == running.url + "/metrics"


async def test_scrapes_at_once_beyond_the_limit_are_refused_and_the_server_goes_on(
    nats_server: RunningNats,
) -> None:
    async with process(nats_server, "node") as (_, info):
        statuses = [
            status for status, _, _ in await asyncio.gather(*(fetch(info.metrics_url) for _ in range(60)))
        ]
        assert set(statuses) <= {200, 503}
        assert 200 in statuses
        assert (await fetch(info.metrics_url))[0] == 200


async def test_promtool_finds_nothing_to_complain_about(nats_server: RunningNats, promtool: str) -> None:
    async with process(nats_server, "node") as (_, info):
        _, _, text = await fetch(info.metrics_url)
    assert await asyncio.to_thread(complaints, promtool, text) == ""
