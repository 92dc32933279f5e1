"""A job gives the answer that the same chat gives, or the same error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.engine.onnx_backend import OnnxBackend
from tests.actors.engine.onnx.asking import PROMISED
from tests.actors.jobs.client import JobsClient
from tests.fixtures.chat_bodies import HI, RIGHT, WRONG
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.models import smollm2_folder

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A real model, and `echo` for what is refused."""
    echo = EchoBackend(EchoSettings(models=("echo",), embedding_models=("echo-embed",), context_tokens=2000))
    with running_cluster([("onnx", OnnxBackend([smollm2_folder()])), ("echo", echo)], agents=True) as running:
        yield running


def chat(cluster: Cluster, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.post(f"{cluster.base_url}/chat/completions", json=body, timeout=60).json()
    return answer


def same(choice: dict[str, Any]) -> dict[str, Any]:
    """All of a choice but the ids of its calls, which are drawn. Company may move a log probability as far as
    the engine promises."""
    calls = [call["function"] for call in choice["message"].get("tool_calls", ())]
    tokens = (choice["logprobs"] or {}).get("content") or ()
    values = [pytest.approx(token["logprob"], abs=PROMISED) for token in tokens]
    parts = {"message": choice["message"] | {"tool_calls": calls}}
    return choice | parts | {"logprobs": [token["token"] for token in tokens], "values": values}


def test_a_job_gives_the_answer_of_the_same_chat(cluster: Cluster, client: JobsClient) -> None:
    bodies = [{"model": MODEL, "temperature": 0, "max_tokens": 12} | body for body in RIGHT]
    jobs = [client.submit(body) for body in bodies]
    for body, job in zip(bodies, jobs, strict=True):
        assert job.status == 202, (body, job.body)
        ended, answer = client.ended(job.body["id"], within_s=60), chat(cluster, body)
        assert ended["status"] == "succeeded", (body, ended)
        result = ended["result"]
        assert [*map(same, result["choices"])] == [*map(same, answer["choices"])], body
        for part in ("prompt_tokens", "completion_tokens", "total_tokens"):
            assert result["usage"][part] == answer["usage"][part], body
        for part in ("node", "model", "steps", "notes"):
            assert result["orchestra"].get(part) == answer["orchestra"].get(part), body


def test_a_job_gives_the_error_of_the_same_chat(cluster: Cluster, client: JobsClient) -> None:
    """The error comes at the submission or, where only the node can know it, at the end of the job."""
    for change, param, _ in WRONG:
        body = {"model": "echo", "messages": HI} | change
        expected = chat(cluster, body)["error"]
        submitted = client.submit(body)
        if submitted.status == 202:
            error = client.ended(submitted.body["id"])["error"]
        else:
            assert submitted.status == 400, body
            error = submitted.body["error"]
        assert (error["code"], error["param"], error["message"]) == (
            expected["code"],
            param,
            expected["message"],
        ), body


def test_a_job_of_a_pattern_has_the_fields_of_its_chat(cluster: Cluster, client: JobsClient) -> None:
    body = {"model": "orchestra/single", "messages": HI, "temperature": 0, "max_tokens": 8}
    body |= {"orchestra": {"model": MODEL}, "frobnicate": 1}
    job, answer = client.ended(client.submit(body).body["id"]), chat(cluster, body)
    assert job["result"]["choices"] == answer["choices"]
    assert job["result"]["orchestra"]["notes"] == answer["orchestra"]["notes"]
