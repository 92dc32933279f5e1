"""`/v1/runs/{id}/events`: what happens in a run, for whoever watches and whenever they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.gateway.admission_settings import CallerSettings
from actors.gateway.settings import GatewaySettings
from tests.fixtures.cluster import Cluster, running_cluster

ALICE, BOB = "alice", "bob"
SETTINGS = GatewaySettings(
    http="127.0.0.1:0",
    max_run_event_streams=3,
    callers={name: CallerSettings(key=f"key-of-{name}") for name in (ALICE, BOB)},
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`echo` answers at once; `slow` says 20 words a second."""
    fast = EchoSettings(models=("echo",), repeat=False)
    slow = EchoSettings(models=("slow",), speed=20)
    with running_cluster(
        [("fast", EchoBackend(fast)), ("paced", EchoBackend(slow))], gateway=SETTINGS, agents=True
    ) as c:
        yield c


@asynccontextmanager
async def session_of(cluster: Cluster, caller: str) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"authorization": f"Bearer key-of-{caller}"}
    async with aiohttp.ClientSession(cluster.url, headers=headers) as session:
        yield session


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    """Alice's."""
    async with session_of(cluster, ALICE) as session:
        yield session


def body(pattern: str, model: str = "echo", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    return {"model": f"orchestra/{pattern}", "messages": messages, "orchestra": {"model": model}} | more


async def asked(http: aiohttp.ClientSession, said: dict[str, Any]) -> tuple[str, str]:
    """The run's id and the whole answer."""
    async with http.post("/v1/chat/completions", json=said) as reply:
        found = await reply.json()
        assert reply.status == 200, found
        return reply.headers["x-orchestra-run"], found["choices"][0]["message"]["content"]


async def read(reply: aiohttp.ClientResponse) -> AsyncIterator[tuple[int, str, dict[str, Any]]]:
    """Events as a client of server-sent events has them: id, kind, data."""
    seq, kind = -1, ""
    async for raw in reply.content:
        field, _, value = raw.decode().rstrip("\n").partition(": ")
        if field == "id":
            seq = int(value)
        elif field == "event":
            kind = value
        elif field == "data":
            yield seq, kind, json.loads(value)


async def all_of(
    http: aiohttp.ClientSession, run: str, last: int | None = None
) -> list[tuple[int, str, dict[str, Any]]]:
    headers = {} if last is None else {"last-event-id": str(last)}
    async with http.get(f"/v1/runs/{run}/events", headers=headers) as reply:
        assert reply.status == 200, await reply.text()
        assert reply.headers["content-type"].startswith("text/event-stream")
        return [event async for event in read(reply)]


async def test_a_late_reader_gets_all_events_and_one_that_reconnects_gets_the_rest(
    http: aiohttp.ClientSession,
) -> None:
    run, text = await asked(http, body("maestro"))
    events = await all_of(http, run)
    assert [seq for seq, _, _ in events] == list(range(len(events)))
    assert all(
        data["seq"] == seq and data["type"] == kind and data["run"] == run for seq, kind, data in events
    )
    kinds = [kind for _, kind, _ in events]
    assert (kinds[0], kinds[-1]) == ("started", "ended")
    assert "".join(data["text"] for _, kind, data in events if kind == "text_delta") == text
    assert await all_of(http, run, last=4) == events[5:]
    async with http.get(f"/v1/runs/{run}/events", headers={"last-event-id": str(len(events) - 1)}) as reply:
        assert reply.status == 204  # which tells a browser not to come again


async def test_the_events_of_a_run_are_streamed_until_it_ends(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    said = body("single", "slow", stream=True, max_tokens=20)
    async with http.post("/v1/chat/completions", json=said) as answer:
        run = answer.headers["x-orchestra-run"]
        async with http.get(f"/v1/runs/{run}/events") as reply:
            events = read(reply)
            while (event := await anext(events))[1] != "text_delta":
                pass
            assert cluster.running_on("paced") == 1  # in its midst
            rest = [event async for event in events]
        assert rest[-1][1] == "ended"
        assert rest[-1][2]["finish_reason"] == "length"
        text = "".join(data["text"] for _, kind, data in [event, *rest] if kind == "text_delta")
        assert len(text.split()) == 20


async def test_a_caller_sees_its_own_runs_only_and_needs_a_key(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    run, _ = await asked(http, body("single"))
    async with session_of(cluster, BOB) as bob, bob.get(f"/v1/runs/{run}/events") as reply:
        assert reply.status == 404
        assert (await reply.json())["error"]["code"] == "no_such_run"
    async with aiohttp.ClientSession(cluster.url) as nobody, nobody.get(f"/v1/runs/{run}/events") as reply:
        assert reply.status == 401
    assert await all_of(http, run)


@pytest.mark.parametrize(
    "run", ["a.1", "never-seen.1", "job-000000000000000000000000", "*.*", ">", "a b.c", "x"]
)
async def test_an_unknown_run_is_not_found(http: aiohttp.ClientSession, run: str) -> None:
    async with http.get(f"/v1/runs/{run}/events") as reply:
        error = (await reply.json())["error"]
        assert reply.status == 404
        assert error["param"] in ("id", None)


async def test_a_single_generation_has_no_events(http: aiohttp.ClientSession) -> None:
    messages = [{"role": "user", "content": "Why?"}]
    run, _ = await asked(http, {"model": "echo", "messages": messages})
    async with http.get(f"/v1/runs/{run}/events") as reply:
        assert reply.status == 404
        assert "a single generation has no events" in (await reply.json())["error"]["message"]


async def test_an_answer_says_what_its_budget_cut_and_what_it_used(http: aiohttp.ClientSession) -> None:
    said = body("maestro")
    said["orchestra"]["budget"] = {"calls": 2, "tokens": 4_000}
    async with http.post("/v1/chat/completions", json=said) as reply:
        found = await reply.json()
    used = found["orchestra"]["report"]["budget"]
    assert used["calls"] == {"used": 2, "limit": 2}
    assert used["tokens"] == {"used": found["usage"]["total_tokens"], "limit": 4_000}
    assert used["left_out"]
    assert any(
        note.startswith("to stay within 4000 tokens, 2 calls: ") for note in found["orchestra"]["notes"]
    )


async def test_a_budget_that_is_too_small_for_any_answer_says_so(http: aiohttp.ClientSession) -> None:
    said = body("single")
    said["orchestra"]["budget"] = {"tokens": 10}
    async with http.post("/v1/chat/completions", json=said) as reply:
        error = (await reply.json())["error"]
    assert (reply.status, error["code"]) == (402, "budget_exceeded")
    assert "of the budget of 10 tokens, 0 are used" in error["message"]


@pytest.mark.parametrize("said", ["soon", "-1", "1" * 20])
async def test_an_invalid_last_event_id_is_refused(http: aiohttp.ClientSession, said: str) -> None:
    async with http.get("/v1/runs/a.1/events", headers={"last-event-id": said}) as reply:
        assert reply.status == 400
        assert (await reply.json())["error"]["param"] == "Last-Event-ID"


async def test_the_events_of_a_job_can_be_read_before_a_coordinator_has_it(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    async with http.post("/v1/jobs", json=body("single", "slow", max_tokens=10)) as reply:
        job = (await reply.json())["id"]
    events = await all_of(http, job)
    assert events[0][1] == "started"
    assert events[-1][1] == "ended"
    assert (await all_of(http, job)) == events


async def test_streams_of_run_events_are_limited_and_end_when_their_clients_disconnect(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    said = body("single", "slow", stream=True, max_tokens=2_000)
    async with http.post("/v1/chat/completions", json=said) as answer:
        path = f"/v1/runs/{answer.headers['x-orchestra-run']}/events"
        watching = [await http.get(path) for _ in range(3)]
        async with http.get(path) as reply:
            assert reply.status == 429
            assert (
                "3 of 3 streams of run events (max_run_event_streams)"
                in (await reply.json())["error"]["message"]
            )
        for reply in watching:
            reply.close()
        async with asyncio.timeout(30):
            while (reply := await http.get(path)).status != 200:
                reply.close()
                await asyncio.sleep(0.02)
            reply.close()


async def test_a_run_taken_back_tells_so(cluster: Cluster, http: aiohttp.ClientSession) -> None:
    said = body("single", "slow", stream=True, max_tokens=2_000)
    async with http.post("/v1/chat/completions", json=said) as answer:
        run = answer.headers["x-orchestra-run"]
        await answer.content.readline()
        reply = await http.get(f"/v1/runs/{run}/events")
        answer.close()
    events = [event async for event in read(reply)]
    assert events[-1][1] == "ended"
    assert events[-1][2]["finish_reason"] == "cancelled"


async def test_streams_of_run_events_do_not_delay_the_shutdown_of_a_gateway() -> None:
    slow = EchoBackend(EchoSettings(models=("slow",), speed=20))
    anyone = GatewaySettings(http="127.0.0.1:0", drain_s=60)
    with running_cluster([("paced", slow)], gateway=anyone, agents=True) as cluster:
        async with aiohttp.ClientSession(cluster.url) as http:
            async with http.post("/v1/jobs", json=body("single", "slow", max_tokens=2_000)) as reply:
                job = (await reply.json())["id"]
            async with http.get(f"/v1/runs/{job}/events") as reply:
                events = read(reply)
                assert (await anext(events))[1] == "started"
                cluster.stop_gateway()
                async with asyncio.timeout(30):
                    said = [data async for _, _, data in events]
        assert said[-1]["error"]["message"] == "the gateway is shutting down"
        cluster.call(cluster.bus.publish(f"cancel.{job}"))


async def test_a_runs_stream_begins_with_the_role(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/chat/completions", json=body("auto", stream=True)) as reply:
        lines = [line async for line in reply.content if line.startswith(b"data: {")]
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert not any("role" in delta for delta in deltas[1:])


async def test_a_pattern_takes_tools_that_need_not_be_called_and_says_that_it_calls_none(
    http: aiohttp.ClientSession,
) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    async with http.post("/v1/chat/completions", json=body("single", tools=tools)) as reply:
        found = await reply.json()
    assert reply.status == 200, found
    assert found["choices"][0]["message"]["content"]
    assert "cannot call your tools" in found["orchestra"]["notes"][0]
