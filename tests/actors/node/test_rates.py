from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.node.rates import RateMeter
from orchestration.errors import BackendFailed
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats


@pytest.fixture
async def cluster(nats_server: RunningNats) -> AsyncIterator[LocalCluster]:
    async with local_cluster(nats_server.url) as cluster:
        yield cluster


def measured(rates: RateMeter, *, others: float = 0, token_s: float = 0.02, uncached: int = 100) -> None:
    first_s = 0.05 + 0.001 * uncached
    took_s = first_s + token_s * 50
    rates.succeeded("m", uncached=uncached, tokens=51, took_s=took_s, first_s=first_s, concurrent=others)


def test_prefill_and_decode_are_told_apart() -> None:
    rates = RateMeter()
    for number in range(40):
        measured(rates, uncached=50 * (number % 10), others=number % 4, token_s=0.02 + 0.005 * (number % 4))
    found = rates.snapshot()["m"]
    assert found.samples == 40
    assert found.first_s == pytest.approx(0.05, rel=0.02)
    assert found.prompt_token_s == pytest.approx(0.001, rel=0.02)
    assert found.token_s == pytest.approx(0.02, rel=0.02)
    assert found.token_s_per_other == pytest.approx(0.005, rel=0.02)
    assert found.slowdown == pytest.approx(1, abs=0.2)


def test_an_answer_in_one_piece_is_split_as_the_estimate_has_it() -> None:
    rates = RateMeter()
    for _ in range(40):
        measured(rates)
    before = rates.snapshot()["m"]
    for _ in range(100):
        rates.succeeded("m", uncached=100, tokens=51, took_s=2.3, first_s=None, concurrent=0)
    after = rates.snapshot()["m"]
    assert after.first_s + 100 * after.prompt_token_s == pytest.approx(0.3, rel=0.05)
    assert after.token_s == pytest.approx(0.04, rel=0.05)
    assert before.token_s == pytest.approx(0.02, rel=0.02)


def test_answers_in_one_piece_alone_are_all_first_token() -> None:
    rates = RateMeter()
    for _ in range(10):
        rates.succeeded("m", uncached=100, tokens=51, took_s=0.4, first_s=None, concurrent=0)
    found = rates.snapshot()["m"]
    assert found.first_s + 100 * found.prompt_token_s == pytest.approx(0.4)
    assert found.token_s == 0


def test_a_sudden_slowness_is_told_before_the_rates_have_moved() -> None:
    rates = RateMeter()
    for _ in range(50):
        measured(rates)
    for _ in range(3):
        measured(rates, token_s=0.1)
    found = rates.snapshot()["m"]
    assert found.slowdown > 1.8
    assert found.token_s < 0.03


def test_failures_count_and_are_forgotten() -> None:
    rates = RateMeter()
    for _ in range(20):
        rates.failed("m")
    assert rates.snapshot()["m"].error_rate > 0.95
    for _ in range(20):
        measured(rates)
    assert rates.snapshot()["m"].error_rate < 0.05


async def test_a_node_tells_how_fast_it_was(cluster: LocalCluster) -> None:
    registry = await cluster.registry()
    node = await cluster.node(speed=200)
    await cluster.dispatcher()
    await asyncio.gather(*(cluster.ask(cluster.generation(tokens=20)) for _ in range(4)))
    await eventually(lambda: cluster.model in registry.nodes[node.id].rates)
    rates = registry.nodes[node.id].rates[cluster.model]
    assert rates.samples >= 1
    assert rates.token_s > 0


async def test_a_node_tells_that_it_fails(cluster: LocalCluster) -> None:
    registry = await cluster.registry()
    node = await cluster.node(fail_first=3)
    await cluster.dispatcher()
    with pytest.raises(BackendFailed):
        await cluster.ask(cluster.generation())
    await eventually(lambda: cluster.model in registry.nodes[node.id].rates)
    assert registry.nodes[node.id].rates[cluster.model].error_rate > 0
