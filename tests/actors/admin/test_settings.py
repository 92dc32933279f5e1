"""Settings and keys over the operations of operators: changed, followed, recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings
from actors.bus.message import ERROR_CODE
from actors.gateway.settings import GatewaySettings
from actors.runtime.envelope import CALLER
from actors.telemetry.event_log import event_log
from orchestration.log_events import LogEvent
from tests.fixtures.cluster import Cluster, running_cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    settings = GatewaySettings(http="127.0.0.1:0")
    with running_cluster([("n1", EchoBackend(EchoSettings(models=("echo",))))], gateway=settings) as running:
        yield running


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    found: list[LogEvent] = []
    event_log.add_sink(found.append)
    yield found
    event_log.remove_sink(found.append)


async def http(cluster: Cluster, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(cluster.url, headers=headers) as session:
        async with session.request(method, path, json=body) as answer:
            return answer.status, await answer.json()


async def nats(cluster: Cluster, verb: str, body: Any, caller: str = "olga") -> tuple[int, Any]:
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="test")
    try:
        data = json.dumps(body).encode()
        answer = await bus.request(f"orchestra.admin.{verb}", data, timeout=30, headers={CALLER: caller})
        return int(answer.header(ERROR_CODE, "200")), json.loads(answer.data)
    finally:
        await bus.close()


async def test_a_setting_is_changed_shown_recorded_and_undone(
    cluster: Cluster, events: list[LogEvent]
) -> None:
    body = {"values": {"gateway.max_in_flight": 7}, "reason": "too busy", "expected_revision": 0}
    status, changed = await http(cluster, "POST", "/admin/settings/set", body)
    assert status == 200
    assert changed["follow"] == "1 of 1 processes follow"
    status, listed = await http(cluster, "GET", "/admin/settings?prefix=gateway.max_in_flight")
    assert status == 200
    row = listed["data"][0]
    assert (row["value"], row["process"], row["default"], row["hot"]) == (7, 1024, 1024, True)
    assert row["origin"] == "cluster (revision 1, by anonymous)"
    (recorded,) = [event for event in events if event.name == "admin.changed"]
    assert recorded.caller == "anonymous"
    assert recorded.data["reason"] == "too busy"
    assert recorded.data["before"] == {"gateway.max_in_flight": None}
    assert recorded.data["after"] == {"gateway.max_in_flight": 7}
    status, again = await http(
        cluster, "POST", "/admin/settings/set", {"values": {"gateway.max_in_flight": 7}}
    )
    assert (status, "change" in again) == (200, False)
    status, refused = await nats(
        cluster, "settings.set", {"values": {"gateway.max_in_flight": 9}, "expected_revision": 0}
    )
    assert (status, refused["error"]["code"]) == (409, "settings_conflict")
    status, _ = await nats(cluster, "settings.undo", {"id": 1, "reason": "quiet again"})
    assert status == 200
    status, refused = await nats(cluster, "settings.undo", {"id": 1})
    assert (status, "undone already, by olga" in refused["error"]["message"]) == (409, True)
    status, history = await http(cluster, "GET", "/admin/settings/history")
    assert [(each["id"], each["by"], each["undoes"]) for each in history["data"]] == [
        (2, "olga", 1),
        (1, "anonymous", None),
    ]
    assert len([event for event in events if event.name == "admin.changed"]) == 2


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"gateway.max_in_flight": 0}, "greater than or equal to 1"),
        ({"gateway.http": "0.0.0.0:80"}, "cannot be changed while processes run"),
        ({"gateway.max_in_flihgt": 5}, "did you mean gateway.max_in_flight"),
        ({"gateway.limits": {}}, "nothing is in the table"),
        ({"gateway.callers.app.key": "sha256:abc"}, "64 hexadecimal digits"),
    ],
)
async def test_bad_values_are_refused(cluster: Cluster, values: dict[str, Any], says: str) -> None:
    status, refused = await http(cluster, "POST", "/admin/settings/set", {"values": values})
    assert status == 400
    assert says in refused["error"]["message"]


async def test_a_key_is_shown_once_and_holds_until_it_is_rotated_or_removed(
    cluster: Cluster, events: list[LogEvent]
) -> None:
    add = {"name": "ops", "scopes": ["admin"]}
    status, added = await nats(cluster, "keys.add", add)
    assert (status, added["note"]) == (200, "from now on every HTTP request needs a key")
    ops = added["key"]
    assert (await http(cluster, "GET", "/admin/keys"))[0] == 401
    status, added = await http(cluster, "POST", "/admin/keys/add", {"name": "app", "queue_depth": 9}, ops)
    app = added["key"]
    status, listed = await http(cluster, "GET", "/admin/keys", key=ops)
    assert [(each["name"], each["scopes"], each["queue_depth"]) for each in listed["data"]] == [
        ("app", ["inference"], 9),
        ("ops", ["admin"], None),
    ]
    assert (await http(cluster, "GET", "/admin/keys", key=app))[0] == 403
    assert (await http(cluster, "GET", "/v1/patterns", key=app))[0] == 200
    status, refused = await http(cluster, "POST", "/admin/keys/add", {"name": "app"}, ops)
    assert status == 409
    status, rotated = await http(cluster, "POST", "/admin/keys/rotate", {"name": "app"}, ops)
    assert (await http(cluster, "GET", "/v1/patterns", key=app))[0] == 401
    assert (await http(cluster, "GET", "/v1/patterns", key=rotated["key"]))[0] == 200
    status, _ = await http(cluster, "POST", "/admin/keys/remove", {"name": "app"}, ops)
    assert (await http(cluster, "GET", "/v1/patterns", key=rotated["key"]))[0] == 401
    status, refused = await http(cluster, "POST", "/admin/keys/remove", {"name": "ops"}, ops)
    assert (status, refused["error"]["code"]) == (409, "refused")
    status, refused = await http(cluster, "POST", "/admin/keys/remove", {"name": "gone"}, ops)
    assert status == 404
    status, shown = await http(cluster, "GET", "/admin/settings?prefix=gateway.callers", key=ops)
    history = await http(cluster, "GET", "/admin/settings/history", key=ops)
    everything = json.dumps([shown, history, [event.model_dump() for event in events]])
    for key in (ops, app, rotated["key"]):
        assert key not in everything
    status, refused = await http(cluster, "POST", "/admin/settings/undo", {"id": 1}, ops)
    assert (status, refused["error"]["code"]) == (409, "refused"), "it would open HTTP"
    assert (await http(cluster, "POST", "/admin/keys/remove", {"name": "ops", "open": True}, ops))[0] == 200
    assert (await http(cluster, "GET", "/v1/patterns"))[0] == 200
