"""The table of the operations of operators, who may call them, and that HTTP and NATS answer alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from actors.admin.operations import ADMIN_OPERATIONS
from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus
from actors.bus.message import ERROR_CODE
from actors.bus.settings import BusSettings
from actors.gateway.admission_settings import CallerSettings
from actors.gateway.authentication import check_local
from actors.gateway.errors import Forbidden
from actors.gateway.operation import Access, Operation
from actors.gateway.operations import OPERATIONS
from actors.gateway.settings import GatewaySettings
from actors.runtime.envelope import CALLER
from tests.fixtures.cluster import Cluster, running_cluster

SETTINGS = GatewaySettings(
    http="127.0.0.1:0",
    callers={
        "alice": CallerSettings(key="key-of-alice"),
        "olga": CallerSettings(key="key-of-olga", scopes=("admin",)),
        "both": CallerSettings(key="key-of-both", scopes=("inference", "admin")),
    },
)


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key-of-{name}"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    backends = [(name, EchoBackend(EchoSettings(models=("echo",)))) for name in ("n1", "n2", "n3")]
    with running_cluster(backends, gateway=SETTINGS) as running:
        yield running


async def over_http(
    cluster: Cluster, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    headers = bearer("olga") if headers is None else headers
    async with aiohttp.ClientSession(cluster.url, headers=headers) as http:
        async with http.request(method, path, json=body) as answer:
            return answer.status, await answer.json()


async def over_nats(cluster: Cluster, subject: str, body: Any, caller: str = "olga") -> tuple[int, Any]:
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="test")
    try:
        headers = {CALLER: caller} if caller else None
        answer = await bus.request(subject, json.dumps(body).encode(), timeout=30, headers=headers)
        return int(answer.header(ERROR_CODE, "200")), json.loads(answer.data)
    finally:
        await bus.close()


def test_the_rows_are_distinct_and_complete() -> None:
    rows: list[Operation[Any]] = [*OPERATIONS, *ADMIN_OPERATIONS]
    for values in (
        [each.name for each in rows],
        [each.subject for each in rows if each.subject],
        [(method, each.route) for each in rows for method in each.methods],
    ):
        assert len(set(values)) == len(values)
    for each in ADMIN_OPERATIONS:
        assert each.access is Access.ADMIN
        assert each.subject.startswith("orchestra.admin.") or each.http_handler is not None
        assert each.path.startswith("/admin/")
        assert (each.handler is None) != (each.http_handler is None)
        assert each.summary


@pytest.mark.parametrize("operation", ADMIN_OPERATIONS, ids=lambda each: each.name)
async def test_each_operation_refuses_a_key_without_the_scope(
    cluster: Cluster, operation: Operation[Any]
) -> None:
    path = operation.path.replace("{id}", "n1").replace("{number}", "1")
    for headers, status in (({}, 401), (bearer("nobody"), 401), (bearer("alice"), 403)):
        answered, body = await over_http(cluster, operation.method, path, {}, headers)
        assert (answered, "error" in body) == (status, True)
    if not operation.subject:
        return
    status, body = await over_nats(cluster, operation.subject, {}, "alice")
    assert status in (400, 403)  # 400: the request is read first
    assert status == 400 or "lacks the scope 'admin'" in body["error"]["message"]


async def test_the_key_of_an_operator_alone_asks_no_model(cluster: Cluster) -> None:
    body = {"model": "echo", "messages": [{"role": "user", "content": "a"}]}
    chat = "/v1/chat/completions"
    assert (await over_http(cluster, "POST", chat, body, bearer("olga")))[0] == 403
    for name in ("alice", "both"):
        assert (await over_http(cluster, "POST", chat, body, bearer(name)))[0] == 200


@pytest.mark.parametrize(
    ("path", "subject", "fields"),
    [
        ("/admin/nodes", "nodes.list", {}),
        ("/admin/nodes?limit=2", "nodes.list", {"limit": 2}),
        ("/admin/nodes?limit=0", "nodes.list", {"limit": 0}),
        ("/admin/nodes/n9", "nodes.inspect", {"id": "n9"}),
        ("/admin/openapi.json", "openapi", {}),
    ],
)
async def test_http_and_nats_answer_alike(
    cluster: Cluster, path: str, subject: str, fields: dict[str, Any]
) -> None:
    http = await over_http(cluster, "GET", path)
    assert await over_nats(cluster, f"orchestra.admin.{subject}", fields) == http


@pytest.mark.parametrize(
    ("path", "subject", "fields", "unknown", "has"),
    [
        ("/admin/cache/clear", "cache.clear", {"modell": "echo"}, "modell", "model, namespace, reason"),
        ("/admin/nodes?limt=2", "nodes.list", {"limt": "2"}, "limt", "after, limit"),
        ("/admin/openapi.json?a=b", "openapi", {"a": "b"}, "a", "none"),
    ],
)
async def test_a_misspelt_parameter_is_refused(
    cluster: Cluster, path: str, subject: str, fields: dict[str, Any], unknown: str, has: str
) -> None:
    """Without it, such an operation would do more than was asked for."""
    method = "POST" if path.endswith("clear") else "GET"
    http = await over_http(cluster, method, path, fields if method == "POST" else None)
    assert http == await over_nats(cluster, f"orchestra.admin.{subject}", fields)
    status, body = http
    assert (status, body["error"]["param"]) == (400, unknown)
    assert body["error"]["message"] == f"unknown parameter {unknown!r}; this operation has: {has}"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/admin/models/load", {"model": "echo", "node": "n9"}, "node"),
        ("/admin/models/unload", {"model": "echo", "node": "n9"}, "node"),
        ("/admin/models/pin", {"model": "echo", "node": "n9"}, "node"),
        ("/admin/models/pull", {"model": "smollm2-135m", "node": "n9"}, "node"),
        ("/admin/breakers/hold", {"model": "echo", "node": "n9"}, "node"),
        ("/admin/breakers/hold", {"model": "nope", "node": "n1"}, "model"),
        ("/admin/nodes/drain", {"id": "n9"}, "id"),
        ("/admin/nodes/label", {"id": "n9"}, "id"),
        ("/admin/nodes/remove", {"id": "n9"}, "id"),
    ],
)
async def test_an_error_names_the_parameter_that_is_wrong(
    cluster: Cluster, path: str, fields: dict[str, str], param: str
) -> None:
    status, body = await over_http(cluster, "POST", path, fields)
    assert (status, body["error"]["param"]) == (404, param)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65])
async def test_an_error_says_in_words_what_a_name_is(cluster: Cluster, name: str) -> None:
    status, body = await over_http(cluster, "POST", "/admin/keys/add", {"name": name})
    assert (status, body["error"]["param"]) == (400, "name")
    assert body["error"]["message"] == (
        f"name: {name!r} is not a name of 1 to 64 letters, digits and the signs _ . @ -"
    )


async def test_a_body_above_the_limit_of_its_operation_is_not_blamed_on_the_settings(
    cluster: Cluster,
) -> None:
    fields = {"id": "n1", "reason": "x" * 100_000}
    http = await over_http(cluster, "POST", "/admin/nodes/drain", fields)
    over = await over_nats(cluster, "orchestra.admin.nodes.drain", fields)
    for status, body in (http, over):
        assert status == 413
        assert "exceeds the limit of this operation, 65536" in body["error"]["message"]


async def test_a_list_comes_in_pages_by_key(cluster: Cluster) -> None:
    seen: list[str] = []
    after = ""
    while True:
        _, page = await over_http(cluster, "GET", f"/admin/nodes?limit=2&after={after}")
        seen += [node["id"] for node in page["data"]]
        after = page["next"]
        if not after:
            break
    assert seen == ["n1", "n2", "n3"]


async def test_a_node_that_is_not_there_gets_the_names_of_those_that_are(cluster: Cluster) -> None:
    status, body = await over_http(cluster, "GET", "/admin/nodes/n9")
    assert status == 404
    assert body["error"]["message"] == "no live node 'n9'; there are: n1, n2, n3"
    assert (await over_http(cluster, "GET", "/admin/nodes/n1"))[1]["slots"] > 0


async def test_a_path_below_admin_that_does_not_exist_is_not_found(cluster: Cluster) -> None:
    assert (await over_http(cluster, "GET", "/admin/nothing"))[0] == 404
    assert (await over_http(cluster, "DELETE", "/admin/nodes"))[0] == 405


@pytest.mark.parametrize(
    ("listens_on", "host", "origin", "answers"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", "", True),
        ("localhost:80", "localhost", "", True),
        ("[::1]:80", "[::1]:80", "http://[::1]:80", True),
        ("127.0.0.1:80", "localhost:80", "http://localhost:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", "", False),
        ("[::]:80", "[::1]:80", "", False),
        ("127.0.0.1:80", "evil.example", "", False),
        ("127.0.0.1:80", "127.0.0.1:80", "https://evil.example", False),
        ("127.0.0.1:80", "127.0.0.1:80", "null", False),
    ],
)
def test_without_keys_only_this_machine_is_answered(
    listens_on: str, host: str, origin: str, answers: bool
) -> None:
    if answers:
        check_local(listens_on, host, origin)
    else:
        with pytest.raises(Forbidden):
            check_local(listens_on, host, origin)


def test_without_callers_in_the_settings_no_key_is_needed_on_loopback() -> None:
    import asyncio

    with running_cluster([("n1", EchoBackend(EchoSettings(models=("echo",))))]) as running:
        assert asyncio.run(over_http(running, "GET", "/admin/nodes", headers={}))[0] == 200
        other_site = {"Origin": "https://evil.example"}
        assert asyncio.run(over_http(running, "GET", "/admin/nodes", headers=other_site))[0] == 403
        assert asyncio.run(over_nats(running, "orchestra.admin.nodes.list", {}, ""))[0] == 200
