"""`POST /v1/feedback`, `orchestra.feedback` and `orchestra feedback`, as users give it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from actors.backends.echo import EchoBackend, EchoSettings
from actors.cli.main import FAILED, USAGE, root
from actors.gateway.admission_settings import CallerSettings
from actors.gateway.settings import GatewaySettings
from actors.learning.record_store import RecordStore
from actors.runtime.service_client import feedback_call
from orchestration.errors import UnknownModel
from orchestration.query_analysis.features import KINDS
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually

PATH, CHAT = "/v1/feedback", "/v1/chat/completions"
SETTINGS = GatewaySettings(
    http="127.0.0.1:0",
    callers={
        "alice": CallerSettings(key="key-of-alice"),
        "bob": CallerSettings(key="key-of-bob"),
        "ann": CallerSettings(key="key-of-ann", namespace="team"),
        "tom": CallerSettings(key="key-of-tom", namespace="team"),
    },
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    node = EchoBackend(EchoSettings(models=("echo",), repeat=False))
    with running_cluster([("n", node)], gateway=SETTINGS, agents=True) as running:
        yield running


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cluster.url) as session:
        yield session


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key-of-{name}"}


async def answered(http: aiohttp.ClientSession, caller: str, model: str = "orchestra/auto") -> str:
    """The id of a run."""
    body = {"model": model, "messages": [{"role": "user", "content": "Write a poem about the moon"}]}
    async with http.post(CHAT, json=body, headers=bearer(caller)) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["X-Orchestra-Run"]


async def give(http: aiohttp.ClientSession, body: Any, caller: str = "alice") -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with http.post(PATH, data=data, headers=bearer(caller)) as answer:
        return answer.status, await answer.json()


async def total(cluster: Cluster) -> float:
    """Judgements on the record, over all kinds."""

    async def read() -> float:
        store = RecordStore(cluster.bus)
        await store.start()
        await store.stop()
        tallies = [tally for kind in KINDS for tally in store.record(kind).arms.values()]
        return sum(tally.total for tally in tallies)

    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(read(), cluster.loop))


async def test_a_word_on_a_run_is_counted_and_another_one_replaces_it(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    run, before = await answered(http, "alice"), await total(cluster)
    status, said = await give(http, {"run": run, "score": "good", "comment": "lovely"})
    assert status == 200
    assert said == {"run": run, "score": 1, "kind": "creative", "pattern": "single", "object": "feedback"}
    status, said = await give(http, {"run": f"chatcmpl-{run}", "score": -0.5})
    assert (status, said["replaced"]) == (200, 1)
    assert await total(cluster) == pytest.approx(before + 3, abs=0.2)


async def test_a_run_of_any_pattern_takes_feedback(http: aiohttp.ClientSession) -> None:
    status, said = await give(http, {"run": await answered(http, "alice", "orchestra/maestro"), "score": 0.5})
    assert (status, said["pattern"]) == (200, "maestro")


def said_in_log(url: str, *options: str) -> list[dict[str, Any]]:
    """The events that `orchestra logs` prints."""
    lines = CliRunner().invoke(root, ["logs", *options, "--json", "--nats", url]).stdout.splitlines()
    return [json.loads(line) for line in lines]


async def test_what_was_learnt_is_shown_and_can_be_forgotten(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    def shell(*words: str) -> Any:
        return CliRunner().invoke(root, ["tuning", *words, "--nats", cluster.nats.url])

    await give(http, {"run": await answered(http, "alice"), "score": 1})
    known = json.loads((await asyncio.to_thread(shell, "show", "--json")).stdout)
    assert known["creative"]["models"]["echo"]["user"]["right"] > 0
    shown = (await asyncio.to_thread(shell, "show")).stdout
    assert "/single" in shown
    assert "echo" in shown
    assert (await asyncio.to_thread(shell, "forget")).exit_code == USAGE
    forgotten = await asyncio.to_thread(
        shell, "forget", "creative", "--reason", "new model", "--yes", "--json"
    )
    assert json.loads(forgotten.stdout) == ["creative"]
    records = await asyncio.to_thread(said_in_log, cluster.nats.url, "--kind", "admin")
    assert [(each["data"]["action"], each["data"]["reason"]) for each in records] == [
        ("tuning.forget", "new model")
    ]
    known = json.loads((await asyncio.to_thread(shell, "show", "--json")).stdout)
    assert known["creative"]["arms"] == {}


async def test_a_jobs_answer_takes_feedback_by_its_id(http: aiohttp.ClientSession) -> None:
    body = {"model": "orchestra/auto", "messages": [{"role": "user", "content": "Who wrote Hamlet?"}]}
    async with http.post("/v1/jobs", json=body, headers=bearer("alice")) as answer:
        job = (await answer.json())["id"]

    async def ended() -> bool:
        async with http.get(f"/v1/jobs/{job}", headers=bearer("alice")) as answer:
            return bool((await answer.json())["status"] == "succeeded")

    await eventually(ended)
    assert (await give(http, {"run": job, "score": "bad"}))[1]["kind"] == "factual"
    assert (await give(http, {"run": job, "score": "bad"}, "bob"))[0] == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"run": "a.1", "score": 1.5}, "score"),
        ({"run": "a.1", "score": -2}, "score"),
        ({"run": "a.1", "score": "fine"}, "score"),
        ({"run": "a.1", "score": True}, "score"),
        ({"run": "a.1", "score": None}, "score"),
        ({"run": "a.1"}, "score"),
        ({"score": 1}, "run"),
        ({"run": "", "score": 1}, "run"),
        ({"run": 5, "score": 1}, "run"),
        ({"run": "a.1", "score": 1, "comment": "x" * 3000}, "comment"),
        (b'{"run": "a.1", "score": NaN}', "score"),
        (b"not json", None),
    ],
)
async def test_a_wrong_body_is_refused_naming_the_field(
    http: aiohttp.ClientSession, body: Any, param: str | None
) -> None:
    status, said = await give(http, body)
    assert (status, said["error"]["code"]) == (400, "invalid_request")
    assert said["error"]["param"] == param


async def test_a_run_that_nobody_knows_or_that_is_anothers_is_not_there(http: aiohttp.ClientSession) -> None:
    run = await answered(http, "alice")
    for who, which in (("alice", "never.1"), ("bob", run)):
        status, said = await give(http, {"run": which, "score": 1}, who)
        assert (status, said["error"]["code"]) == (404, "unknown_run")
        assert which in said["error"]["message"]
    shared = await answered(http, "ann")
    assert (await give(http, {"run": shared, "score": 1}, "tom"))[0] == 200


async def test_feedback_needs_a_key_where_callers_have_one_and_is_posted(http: aiohttp.ClientSession) -> None:
    async with http.post(PATH, json={"run": "a.1", "score": 1}) as answer:
        assert answer.status == 401
    async with http.get(PATH, headers=bearer("alice")) as answer:
        assert answer.status == 405
    assert (await give(http, b"x" * 20_000))[0] == 413


async def test_feedback_comes_over_nats_and_from_the_shell_too(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    run = await answered(http, "alice")

    async def call(which: str) -> dict[str, Any]:
        work = feedback_call(cluster.bus, {"run": which, "score": "bad"})
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, cluster.loop))

    assert (await call(run))["score"] == -1
    with pytest.raises(UnknownModel, match=r"never\.1"):
        await call("never.1")

    def shell(*words: str) -> Any:
        return CliRunner().invoke(root, ["feedback", *words, "--nats", cluster.nats.url])

    done = await asyncio.to_thread(shell, run, "good", "--comment", "after all")
    assert (done.exit_code, done.stdout) == (
        0,
        "recorded 1 for single on creative questions, instead of -1\n",
    )
    assert (await asyncio.to_thread(shell, run, "0.25")).exit_code == 0
    for words in ((run, "lovely"), (run, "3"), ("never.1", "good")):
        assert (await asyncio.to_thread(shell, *words)).exit_code == USAGE != FAILED
