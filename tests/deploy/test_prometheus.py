"""A real Prometheus scrapes a real cluster, by the configuration and the rules in `deploy`."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from actors.bus.bus import Bus, BusSettings
from actors.bus.subjects import CHAT_SUBJECT
from tests.deploy.test_rules import DEPLOY, METRIC, RULES, expressions
from tests.fixtures.eventually import eventually
from tests.fixtures.machines import READY, free_ports
from tests.fixtures.process import orchestra
from tests.fixtures.prometheus import complaints

ONLY_AFTER_TROUBLE = re.compile(
    "orchestra_(bus|cache|debate|dead|feedback|log_gap|mailbox|job_attempts|telemetry|tool|engine|expiry|hedges"
    "|gateway_refused|gateway_token_budget|gateway_cache|placement_(moved|hedges|breaker)|node_(un)?loads|nats_adv|dispatcher)"
)
"""Metrics that have no series in a cluster of echo nodes without limits in which nothing went wrong."""


ROLES: dict[str, tuple[str, ...]] = {
    "node": ("--backend", "echo", "--id", "far"),
    "dispatcher": (),
    "agents": (),
    "gateway": ("--http", "127.0.0.1:0"),
}
"""Roles in processes of their own, and the words of their commands."""


@dataclass(frozen=True, slots=True)
class Started:
    """The addresses of a cluster with each role in a process of its own, beside `orchestra up`."""

    http: str
    nats: str


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """`orchestra up` without a model, and each role in a process of its own."""
    folder = tmp_path_factory.mktemp("scraped")
    words = ("up", "--data", str(folder / "up"), "--http", "127.0.0.1:0", "--no-model")
    with orchestra(*words, ORCHESTRA_NATS_SERVER__PORT=str(free_ports(1)[0])) as up:
        ready = READY.search(up.wait_for("Orchestra is ready"))
        assert ready is not None
        with ExitStack() as stack:
            for role, more in ROLES.items():
                common = ("--nats", ready[2], "--data", str(folder / role))
                process = stack.enter_context(orchestra(role, *more, *common))
                line = process.wait_for("Orchestra ")
                assert role == "gateway" or "metrics at http://127.0.0.1:" in line
            yield Started(ready[1], ready[2])


@contextmanager
def prometheus_server(path: str, folder: Path, cluster: Started) -> Iterator[str]:
    """Prometheus with the shipped configuration, at a faster pace and another address; yields its URL."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    (job,) = config["scrape_configs"]
    (discovery,) = job["http_sd_configs"]
    discovery |= {"url": f"{cluster.http}/metrics/targets", "refresh_interval": "1s"}
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    words = [path, f"--config.file={file}", f"--web.listen-address={address}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([*words, f"--storage.tsdb.path={folder / 'data'}"], stdout=log, stderr=log)
        try:
            yield f"http://{address}/api/v1"
        finally:
            server.terminate()
            server.wait(30)


@asynccontextmanager
async def api(url: str) -> AsyncIterator[Any]:
    """Ask Prometheus: `await get("/query", query=…)`."""
    async with aiohttp.ClientSession() as session:

        async def get(path: str, **params: str) -> Any:
            try:
                async with session.get(url + path, params=params) as answer:
                    found = await answer.json()
            except (aiohttp.ClientConnectionError, aiohttp.ContentTypeError):
                return None
            return found["data"] if found["status"] == "success" else None

        yield get


async def talk(cluster: Started) -> None:
    """Some traffic of every kind."""
    chat = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}
    async with aiohttp.ClientSession(cluster.http) as http:
        for body in (
            chat,
            chat | {"stream": True},
            chat | {"model": "orchestra/ensemble"},
            chat | {"model": "made up\n"},
        ):
            async with http.post("/v1/chat/completions", json=body) as answer:
                await answer.read()
        async with http.post("/v1/jobs", json=chat) as answer:
            assert answer.status == 202
    bus = await Bus.connect(BusSettings(url=cluster.nats), name="client")
    await bus.request(CHAT_SUBJECT, json.dumps(chat).encode(), timeout=20)
    await bus.close()


async def test_prometheus_scrapes_every_process_through_a_gateway_and_every_query_runs(
    started: Started, tmp_path: Path, prometheus: str
) -> None:
    await talk(started)
    with prometheus_server(prometheus, tmp_path, started) as url:
        async with api(url) as get:

            async def all_up() -> bool:
                found = await get("/query", query='sum by (role) (up{job="orchestra"})')
                results = (found or {}).get("result", ())
                roles = {each["metric"].get("role"): each["value"][1] for each in results}
                return roles == dict.fromkeys(("up", *ROLES), "1")

            async def evaluated() -> list[dict[str, Any]] | None:
                groups = (await get("/rules") or {"groups": []})["groups"]
                rules = [rule for group in groups for rule in group["rules"]]
                return rules if rules and all(rule["health"] == "ok" for rule in rules) else None

            await eventually(all_up, within_s=60)
            await talk(started)
            quiet_since = time.time()
            rules = await eventually(evaluated, within_s=60)
            firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
            assert firing == []
            for where, query in expressions():
                assert await get("/query", query=query) is not None, f"{where}: {query}"
            names = set(await get("/label/__name__/values"))
            used = {name for _, query in expressions() for name in METRIC.findall(query)}
            missing = {name for name in used - names if not ONLY_AFTER_TROUBLE.match(name)}
            assert missing == set()
            scraped = "timestamp(orchestra_gateway_active)"

            async def scraped_again() -> bool:
                """Whether each gateway was scraped since the last answer; before, requests were active."""
                times = [float(each["value"][1]) for each in (await get("/query", query=scraped))["result"]]
                return len(times) == 2 and min(times) > quiet_since

            await eventually(scraped_again, within_s=60)
            found = (await get("/query", query="orchestra_gateway_active"))["result"]
            assert [each["value"][1] for each in found] == ["0", "0"]


async def test_promtool_has_no_complaint_about_any_process_after_real_traffic(
    started: Started, promtool: str
) -> None:
    await talk(started)
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{started.http}/metrics/targets") as answer:
            targets = await answer.json()
        assert {each["labels"]["role"] for each in targets} == {"up", *ROLES}
        for target in targets:
            async with http.get(started.http + target["labels"]["__metrics_path__"]) as answer:
                text = await answer.text()
            assert "_created" not in text
            assert await asyncio.to_thread(complaints, promtool, text) == ""
