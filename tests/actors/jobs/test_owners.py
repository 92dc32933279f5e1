"""Whose a job is, and how many jobs and tokens each caller may have, over HTTP and NATS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.gateway.admission_settings import CallerSettings
from actors.gateway.settings import GatewaySettings
from actors.jobs.errors import NoSuchJob
from actors.runtime.envelope import CALLER
from actors.runtime.service_client import jobs_call
from orchestration.errors import OrchestraError
from tests.actors.jobs.client import Answer, JobsClient, chat
from tests.actors.jobs.conftest import QUICK
from tests.fixtures.cluster import Cluster, running_cluster

SETTINGS = GatewaySettings(
    http="127.0.0.1:0",
    callers={
        "alice": CallerSettings(key="key-of-alice", namespace="team"),
        "adam": CallerSettings(key="key-of-adam", namespace="team"),
        "bob": CallerSettings(key="key-of-bob"),
        "busy": CallerSettings(key="key-of-busy", unfinished_jobs=2),
        "saver": CallerSettings(key="key-of-saver", tokens_per_minute=100),
        "thrifty": CallerSettings(key="key-of-thrifty", tokens_per_minute=100),
    },
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`echo` at full speed, `slow` at one word a second."""
    backends = [
        ("fast", EchoBackend(EchoSettings(models=("echo",), slots=16, repeat=False))),
        ("paced", EchoBackend(EchoSettings(models=("slow",), speed=1))),
    ]
    with running_cluster(backends, gateway=SETTINGS, agents=True, jobs=QUICK) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> JobsClient:
    return JobsClient(cluster.url)


def as_(client: JobsClient, name: str, method: str, path: str, body: Any = None, key: str = "") -> Answer:
    headers = {"Authorization": f"Bearer key-of-{name}"} | ({"Idempotency_Key": key} if key else {})
    return client.call(method, path, body, **headers)


def over_nats(cluster: Cluster, verb: str, body: dict[str, Any], caller: str = "") -> dict[str, Any]:
    return cluster.call(jobs_call(cluster.bus, verb, body, {CALLER: caller} if caller else None))


def listed(page: dict[str, Any]) -> set[str]:
    return {job["id"] for job in page["data"]}


def test_a_job_is_visible_to_its_own_caller_only(client: JobsClient) -> None:
    job_id = as_(client, "alice", "POST", "/v1/jobs", chat(model="slow", max_tokens=1000)).body["id"]
    for method in ("GET", "DELETE"):
        refused = as_(client, "bob", method, f"/v1/jobs/{job_id}")
        assert (refused.status, refused.body["error"]["code"]) == (404, "no_such_job")
    assert job_id not in listed(as_(client, "bob", "GET", "/v1/jobs").body)
    assert job_id in listed(as_(client, "alice", "GET", "/v1/jobs").body)
    assert as_(client, "alice", "GET", f"/v1/jobs/{job_id}").body["status"] in ("queued", "running")
    assert as_(client, "adam", "DELETE", f"/v1/jobs/{job_id}").body["status"] == "cancelled", "one namespace"


def test_over_nats_a_named_caller_sees_its_own_jobs_and_an_unnamed_one_sees_all(
    cluster: Cluster, client: JobsClient
) -> None:
    theirs = as_(client, "bob", "POST", "/v1/jobs", chat()).body["id"]
    own = over_nats(cluster, "submit", chat(), "alice")["id"]
    assert own in listed(over_nats(cluster, "list", {"limit": 50}, "alice"))
    assert theirs not in listed(over_nats(cluster, "list", {"limit": 50}, "alice"))
    assert {own, theirs} <= listed(over_nats(cluster, "list", {"limit": 50}))
    assert as_(client, "alice", "GET", f"/v1/jobs/{own}").status == 200
    for verb in ("get", "cancel"):
        with pytest.raises(OrchestraError) as caught:
            over_nats(cluster, verb, {"id": theirs}, "alice")
        assert caught.value.status == NoSuchJob.status
        assert over_nats(cluster, verb, {"id": theirs})["id"] == theirs


def test_pages_skip_the_jobs_of_others(client: JobsClient) -> None:
    own = {as_(client, "bob", "POST", "/v1/jobs", chat(f"own {number}")).body["id"] for number in range(3)}
    for number in range(12):
        as_(client, "alice", "POST", "/v1/jobs", chat(f"other {number}"))
    seen: set[str] = set()
    page = as_(client, "bob", "GET", "/v1/jobs?limit=1").body
    while page["next"]:
        assert not listed(page) & seen, "none twice"
        seen |= listed(page)
        page = as_(client, "bob", "GET", f"/v1/jobs?limit=1&before={page['next']}").body
    assert own <= seen | listed(page)


def test_a_caller_with_too_many_unfinished_jobs_is_refused_until_one_is_finished(
    cluster: Cluster, client: JobsClient
) -> None:
    endless = chat(model="slow", max_tokens=1000)
    first = as_(client, "busy", "POST", "/v1/jobs", endless, key="first")
    second = as_(client, "busy", "POST", "/v1/jobs", endless, key="second")
    assert (first.status, second.status) == (202, 202)
    refused = as_(client, "busy", "POST", "/v1/jobs", chat())
    assert (refused.status, refused.body["error"]["code"]) == (429, "too_many_jobs")
    assert int(refused.headers["retry-after"]) >= 1
    cluster.wait(lambda: len(as_(client, "busy", "GET", "/v1/jobs").body["data"]) == 2)
    again = as_(client, "busy", "POST", "/v1/jobs", endless, key="first")
    assert (again.status, again.body["id"]) == (200, first.body["id"]), "it is not a new job"
    assert as_(client, "bob", "POST", "/v1/jobs", chat()).status == 202
    as_(client, "busy", "DELETE", f"/v1/jobs/{first.body['id']}")
    cluster.wait(lambda: as_(client, "busy", "POST", "/v1/jobs", chat()).status == 202)
    as_(client, "busy", "DELETE", f"/v1/jobs/{second.body['id']}")


def test_a_job_costs_tokens_once_however_often_its_key_is_used(cluster: Cluster, client: JobsClient) -> None:
    dear = chat(model="slow", max_tokens=80)
    first = as_(client, "saver", "POST", "/v1/jobs", dear, key="dear")
    assert first.status == 202
    refused = as_(client, "saver", "POST", "/v1/jobs", dear, key="another")
    assert refused.status == 429
    assert "tokens_per_minute" in refused.body["error"]["message"]
    assert 0 < int(refused.headers["retry-after"]) <= 60
    again = as_(client, "saver", "POST", "/v1/jobs", dear, key="dear")
    assert (again.status, again.body["id"]) == (200, first.body["id"])
    chats = as_(client, "saver", "POST", "/v1/chat/completions", chat(max_tokens=80))
    assert chats.status == 429, "jobs and chats share what there is"
    never = as_(client, "saver", "POST", "/v1/jobs", chat(max_tokens=1000))
    assert (never.status, never.body["error"]["code"]) == (400, "too_many_tokens")
    cluster.wait(lambda: len(as_(client, "saver", "GET", "/v1/jobs").body["data"]) == 1)
    as_(client, "saver", "DELETE", f"/v1/jobs/{first.body['id']}")


def test_unused_tokens_of_a_job_are_returned_at_its_end(cluster: Cluster, client: JobsClient) -> None:
    """Without that, the third of these could come after a minute."""

    def accepted() -> bool:
        return as_(client, "thrifty", "POST", "/v1/jobs", chat("one", max_tokens=60)).status == 202

    for _ in range(3):
        cluster.wait(accepted)
