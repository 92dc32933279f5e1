"""Jobs over HTTP and NATS: handed in, fetched, listed, taken back, refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.jobs.wait_for_job import wait_for_job
from actors.runtime.service_client import jobs_call
from orchestration.errors import InvalidRequest
from tests.actors.jobs.client import JobsClient, chat
from tests.fixtures.cluster import Cluster


def test_a_job_is_accepted_at_once_and_its_answer_fetched_by_its_id(client: JobsClient) -> None:
    accepted = client.submit(chat("a job to be done"))
    assert accepted.status == 202
    assert accepted.headers["location"] == f"/v1/jobs/{accepted.body['id']}"
    assert accepted.headers["x-orchestra-run"] == accepted.body["id"]
    assert (accepted.body["priority"], accepted.body["pattern"]) == ("standard", None)
    job = client.ended(accepted.body["id"])
    assert (job["status"], job["attempts"], job["error"]) == ("succeeded", 1, None)
    answer = job["result"]
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == "a job to be done"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["orchestra"]["node"] == "fast"
    assert "trace_id" not in job  # nothing is traced here


def test_a_job_of_a_pattern_has_all_its_steps(client: JobsClient) -> None:
    body = chat("Compare tea and coffee", model="orchestra/maestro", orchestra={"model": "echo"})
    job = client.ended(client.submit(body).body["id"])
    assert job["status"] == "succeeded"
    names = [step["name"] for step in job["result"]["orchestra"]["steps"]]
    assert (names[0], names[-1]) == ("analysis", "synthesis")


def test_the_same_key_gives_the_same_job_and_another_body_under_it_is_refused(client: JobsClient) -> None:
    first = client.submit(chat("once"), key="order-1")
    second = client.submit(chat("once"), key="order-1")
    assert (first.status, second.status) == (202, 200)
    assert second.headers["idempotent-replayed"] == "true"
    assert second.body["id"] == first.body["id"]
    refused = client.submit(chat("twice"), key="order-1")
    assert (refused.status, refused.body["error"]["code"]) == (409, "idempotency_key_reused")
    client.ended(first.body["id"])
    again = client.submit(chat("once"), key="order-1")
    assert again.body["status"] == "succeeded"
    assert again.body["result"]["choices"][0]["message"]["content"] == "once"
    assert client.submit(chat("once"), key="order-2").body["id"] != first.body["id"]


def test_a_running_job_can_be_cancelled_and_frees_its_node(client: JobsClient, cluster: Cluster) -> None:
    job_id = client.submit(chat("again " * 1_000, model="slow", max_tokens=4_000)).body["id"]
    cluster.wait(lambda: cluster.running_on("paced") == 1)
    taken = client.call("DELETE", f"/v1/jobs/{job_id}")
    assert (taken.status, taken.body["status"]) == (200, "cancelled")
    cluster.wait(lambda: cluster.running_on("paced") == 0)
    assert client.get(job_id)["error"]["code"] == "cancelled"
    assert client.call("DELETE", f"/v1/jobs/{job_id}").body["status"] == "cancelled"


def test_a_job_that_has_ended_cannot_be_cancelled(client: JobsClient) -> None:
    job_id = client.submit(chat()).body["id"]
    client.ended(job_id)
    assert client.call("DELETE", f"/v1/jobs/{job_id}").body["status"] == "succeeded"


def test_a_job_with_a_permanent_error_is_not_tried_again(client: JobsClient) -> None:
    job = client.ended(client.submit(chat("word " * 20_000)).body["id"])
    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", "context_length_exceeded", 1)


def test_jobs_are_listed_latest_first_a_page_at_a_time(client: JobsClient) -> None:
    ids = [client.submit(chat(f"number {number}")).body["id"] for number in range(5)]
    for job_id in ids:
        client.ended(job_id)
    page = client.call("GET", "/v1/jobs?limit=2").body
    seen = [job["id"] for job in page["data"]]
    assert len(seen) == 2
    while page["next"] and not set(ids) <= set(seen):
        page = client.call("GET", f"/v1/jobs?limit=2&before={page['next']}").body
        seen += [job["id"] for job in page["data"]]
    assert len(seen) == len(set(seen)), "none twice"
    assert set(ids) <= set(seen)
    assert "result" not in page["data"][0]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (chat(orchestra={"priority": "interactive"}), 400, "orchestra.priority"),
        (chat(stream=True), 400, "stream"),
        (chat(model="nope"), 404, "model"),
        (chat(webhook="ftp://example.org/x"), 400, "webhook"),
        (chat(webhook="http://user:secret@example.org/x"), 400, "webhook"),
        ({"model": "echo", "messages": []}, 400, "messages"),
    ],
)
def test_a_body_that_cannot_be_a_job_is_refused(
    client: JobsClient, body: dict[str, Any], status: int, param: str
) -> None:
    answer = client.submit(body)
    assert (answer.status, answer.body["error"]["param"]) == (status, param)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs/job.000000000000000000000000", 404),
        ("GET", "/v1/jobs/../../x", 404),
        ("DELETE", "/v1/jobs/*", 404),
        ("GET", "/v1/jobs?limit=none", 400),
        ("GET", "/v1/jobs?limit=0", 400),
        ("PUT", "/v1/jobs", 405),
    ],
)
def test_unknown_jobs_and_paths_are_refused(client: JobsClient, method: str, path: str, status: int) -> None:
    assert client.call(method, path).status == status


def test_an_idempotency_key_that_is_too_long_is_refused(client: JobsClient) -> None:
    assert client.submit(chat(), key="k" * 256).body["error"]["param"] == "Idempotency-Key"


def test_jobs_can_be_used_over_nats(cluster: Cluster, client: JobsClient) -> None:
    def call(verb: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
        return cluster.call(jobs_call(cluster.bus, verb, body, headers or None))

    job = call("submit", chat("over NATS"), **{"Idempotency-Key": "nats-1"})
    assert client.ended(job["id"])["status"] == "succeeded"
    assert call("get", {"id": job["id"]}) == client.get(job["id"])
    assert call("cancel", {"id": job["id"]})["status"] == "succeeded"
    assert job["id"] in [listed["id"] for listed in call("list", {"limit": 50})["data"]]
    with pytest.raises(InvalidRequest):
        call("submit", chat("something else"), **{"Idempotency-Key": "nats-1"})


def test_waiting_for_a_job_reports_its_events_until_its_end(cluster: Cluster, client: JobsClient) -> None:
    body = chat("count to five please", model="orchestra/auto", orchestra={"model": "slow"})
    job_id = client.submit(body).body["id"]
    progress: list[str] = []
    job = cluster.call(wait_for_job(cluster.bus, job_id, progress.append))
    assert job["status"] == "succeeded"
    assert "succeeded" in progress
    assert json.dumps(job) == json.dumps(client.get(job_id))
