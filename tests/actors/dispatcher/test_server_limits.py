"""Servers that refuse work for a while: few calls, another node first, and the caller gets their error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.backends.openai import OpenAIBackend, OpenAISettings
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.system import ActorSystem
from orchestration.errors import OrchestraError, RateLimited, ServerBusy
from orchestration.placement import BreakerSettings
from tests.fixtures.local_cluster import SETTINGS, LocalCluster
from tests.fixtures.scripted import DONE, WHOLE, once, stream
from tests.fixtures.upstream import FaultyUpstream, Request, Script, delta, event, faulty_upstream, response

QUICK = SETTINGS.model_copy(update={"breaker": BreakerSettings(dwell_s=0.02)})
SLOW_DOWN = {"error": {"message": "slow down", "type": "rate_limit"}}
GOOD = stream(*WHOLE, DONE)


@asynccontextmanager
async def limited(cluster: LocalCluster, script: Script) -> AsyncIterator[FaultyUpstream]:
    """A node "limited" whose upstream answers by `script`: the cluster's model and `well`, a second one."""
    async with faulty_upstream(script) as upstream:
        models = {cluster.model: "limited", f"{cluster.model}-well": "well"}
        backend = OpenAIBackend(OpenAISettings(base_url=upstream.base_url, models=models))
        settings = NodeSettings(id=f"limited-{cluster.model[-8:]}")
        async with run_node(cluster.node_bus, backend, settings, ActorSystem()):
            yield upstream


def by_model(refusal: Script) -> Script:
    def script(request: Request) -> AsyncIterator[bytes]:
        return (GOOD if request.body["model"] == "well" else refusal)(request)

    return script


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (once(response(429, SLOW_DOWN)), RateLimited),
        (once(response(429, SLOW_DOWN, Retry_After="soon")), RateLimited),
        (once(response(429, SLOW_DOWN, Retry_After="-3")), RateLimited),
        (once(response(503, SLOW_DOWN, Retry_After="0")), ServerBusy),
        (once(response(529, SLOW_DOWN)), ServerBusy),
        (stream(event({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})), RateLimited),
        (stream(event({"error": {"message": "slow down", "code": 429}})), RateLimited),
        (stream(event({"object": "error", "message": "slow down", "code": 429})), RateLimited),
    ],
)
async def test_after_a_few_growing_waits_the_caller_hears_the_servers_words(
    cluster: LocalCluster, refusal: Script, kind: type[OrchestraError]
) -> None:
    async with limited(cluster, refusal) as upstream:
        dispatcher = await cluster.dispatcher(QUICK, sees=1)
        with pytest.raises(kind, match="slow down") as caught:
            await cluster.ask(cluster.generation())
        assert type(caught.value) is kind
        assert caught.value.retry_after_s
        assert len(upstream.requests) == QUICK.breaker.max_refusals
        await cluster.settled(dispatcher)


@pytest.mark.parametrize("wait", ["60", "999999999999"])
async def test_a_wait_beyond_the_deadline_is_refused_at_once_for_that_model_only(
    cluster: LocalCluster, wait: str
) -> None:
    refusal = once(response(429, SLOW_DOWN, Retry_After=wait))
    async with limited(cluster, by_model(refusal)) as upstream:
        dispatcher = await cluster.dispatcher(QUICK, sees=1)
        well = cluster.generation().model_copy(update={"model": f"{cluster.model}-well"})
        for _ in range(3):
            with pytest.raises(RateLimited, match="slow down") as caught:
                await cluster.ask(cluster.generation())
            assert caught.value.retry_after_s is not None
            assert 30 < caught.value.retry_after_s <= float(wait)
            answer, _ = await cluster.ask(well.model_copy(update={"id": cluster.streams.new_id()}))
            assert answer == "Hello there"
        refused = [each for each in upstream.requests if each.body["model"] == "limited"]
        assert len(refused) == 1
        await cluster.settled(dispatcher)


async def test_a_short_wait_is_waited_for(cluster: LocalCluster) -> None:
    answers = [once(response(429, SLOW_DOWN, retry_after_ms="100")), GOOD]
    async with limited(cluster, lambda request: answers.pop(0)(request)):
        dispatcher = await cluster.dispatcher(QUICK, sees=1)
        assert (await cluster.ask(cluster.generation()))[0] == "Hello there"
        await cluster.settled(dispatcher)


async def test_another_node_answers_first_though_it_is_busy(cluster: LocalCluster) -> None:
    async with limited(cluster, once(response(429, SLOW_DOWN, Retry_After="60"))) as upstream:
        good = await cluster.node(slots=1, speed=100)
        dispatcher = await cluster.dispatcher(QUICK, sees=2)
        answers = await asyncio.gather(*(cluster.ask(cluster.generation("one two three")) for _ in range(24)))
        assert {(text, ended.finish.node) for text, ended in answers} == {("one two three", good.id)}
        assert 1 <= len(upstream.requests) <= 24
        refused = len(upstream.requests)
        await cluster.ask(cluster.generation())
        assert len(upstream.requests) == refused
        await cluster.settled(dispatcher)


async def test_a_limit_in_the_middle_of_an_answer_moves_it_too(cluster: LocalCluster) -> None:
    begun = stream(event(delta("one")), event({"error": {"message": "slow down", "code": 429}}))
    async with limited(cluster, begun):
        await cluster.node(slots=1)
        dispatcher = await cluster.dispatcher(QUICK, sees=2)
        answers = await asyncio.gather(*(cluster.ask(cluster.generation("one two")) for _ in range(8)))
        assert {text for text, _ in answers} == {"one two"}
        await cluster.settled(dispatcher)


async def test_a_declared_fallback_answers_for_a_limited_model(cluster: LocalCluster) -> None:
    refusal = once(response(429, SLOW_DOWN, Retry_After="60"))
    async with limited(cluster, by_model(refusal)):
        declared = {cluster.model: (f"{cluster.model}-well",)}
        dispatcher = await cluster.dispatcher(QUICK.model_copy(update={"fallbacks": declared}), sees=1)
        text, ended = await cluster.ask(cluster.generation())
        assert (text, ended.finish.model) == ("Hello there", f"{cluster.model}-well")
        await cluster.settled(dispatcher)


async def test_a_later_generation_is_refused_sooner_under_a_lasting_limit(cluster: LocalCluster) -> None:
    async with limited(cluster, once(response(429, SLOW_DOWN))) as upstream:
        dispatcher = await cluster.dispatcher(QUICK, sees=1)
        for calls in (QUICK.breaker.max_refusals, QUICK.breaker.max_refusals + 1):
            with pytest.raises(RateLimited):
                await cluster.ask(cluster.generation())
            assert len(upstream.requests) == calls
        await cluster.settled(dispatcher)
