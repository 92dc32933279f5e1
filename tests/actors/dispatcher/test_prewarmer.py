"""Dispatchers, a node whose memory is small, and the forecast that lies in NATS between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from actors.bus.key_value import Bucket
from actors.bus.subjects import ARRIVALS_SUBJECT, NodeAddress
from actors.cli.main import root
from actors.dispatcher import Dispatcher
from actors.dispatcher.prewarmer import FORECAST, STATE, SavedForecast
from actors.dispatcher.settings import WarmingSettings
from actors.node.node import Node
from actors.placement.arrival_reporter import ArrivalReport
from actors.runtime.envelope import Envelope, trace_of
from actors.runtime.service import ERROR_CODE
from orchestration.forecast import ModelCall
from orchestration.messages import LoadModel, LoadResult
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import SETTINGS, LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats, start_nats
from tests.fixtures.small_memory import loaded, models_of, of, small_node

WARMS = SETTINGS.model_copy(update={"warming": WarmingSettings(interval_s=0.2, save_s=0.5)})


@pytest.fixture(scope="module")
def own_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNats]:
    """A server of its own: whoever holds the lease warms all nodes of a server."""
    running = start_nats(Path(tmp_path_factory.mktemp("warming")))
    yield running
    running.stop()


@pytest.fixture
async def cluster(own_nats: RunningNats) -> AsyncIterator[LocalCluster]:
    async with local_cluster(own_nats.url) as cluster:
        yield cluster


async def ask(cluster: LocalCluster, model: str, envelope: Envelope) -> None:
    async for _ in cluster.streams.stream(of(cluster, model, tokens=1), envelope):
        pass


async def told(cluster: LocalCluster, node: Node, wanted: LoadModel) -> tuple[str, LoadResult | None]:
    body = wanted.model_dump_json().encode()
    answer = await cluster.bus.request(NodeAddress(node.id).load, body, timeout=30)
    code = answer.header(ERROR_CODE)
    return code, None if code else LoadResult.model_validate_json(answer.data)


def holder(*dispatchers: Dispatcher) -> list[Dispatcher]:
    return [each for each in dispatchers if each.snapshot().prewarm_leader]


async def learnt(cluster: LocalCluster, dispatcher: Dispatcher, planner: str, writer: str) -> None:
    """As if runs of a pattern had gone on for a while: each calls one model, then the other."""
    for run in range(5):
        steps = [ModelCall(run=f"{run}", pattern="maestro", model=model) for model in (planner, writer)]
        cluster.bus.post(
            ARRIVALS_SUBJECT, ArrivalReport(arrivals={}, steps=tuple(steps)).model_dump_json().encode()
        )
    state = f"maestro\n{planner}"
    await eventually(lambda: state in dispatcher.prewarmer.forecast.state(time.time()).followers)


async def test_the_model_that_a_run_calls_next_is_loaded_while_the_one_before_is_at_work(
    cluster: LocalCluster,
) -> None:
    planner, other, writer = models_of(cluster, 3)
    node = await small_node(cluster, (planner, other, writer), fit=2, load_s=0.3)
    dispatcher = await cluster.dispatcher(WARMS, sees=0)
    await eventually(lambda: dispatcher.snapshot().prewarm_leader)
    assert loaded(node) == [planner, other]
    await learnt(cluster, dispatcher, planner, writer)
    envelope = Envelope(deadline=time.time() + 30, trace=trace_of("run"), pattern="maestro")
    await ask(cluster, planner, envelope)
    await eventually(lambda: loaded(node) == [planner, writer])
    await ask(cluster, writer, envelope)
    await ask(cluster, other, Envelope.within(30))
    use = node.describe().memory
    assert (use.warmed, use.cold, use.hits) == (1, 1, 1)


async def test_one_dispatcher_decides_and_the_next_one_continues_from_its_forecast(
    cluster: LocalCluster,
) -> None:
    planner, writer = models_of(cluster, 2)
    first = await cluster.dispatcher(WARMS, sees=0)
    await eventually(lambda: first.snapshot().prewarm_leader)
    second = await cluster.dispatcher(WARMS, sees=0)
    await learnt(cluster, first, planner, writer)
    assert holder(first, second) == [first]
    await first.prewarmer.stop()
    await eventually(lambda: second.snapshot().prewarm_leader)
    assert holder(first, second) == [second]
    followers = second.prewarmer.forecast.state(time.time()).followers
    assert followers[f"maestro\n{planner}"][writer] > 3


async def test_a_load_ahead_evicts_only_permitted_models_and_none_in_use(cluster: LocalCluster) -> None:
    a, b, c = models_of(cluster, 3)
    node = await small_node(cluster, (a, b, c), fit=2)
    wanted = LoadModel(model=c, ahead=True)
    assert (await told(cluster, node, wanted))[0] == "429"
    assert node.describe().memory.claims == (), "nobody waits for it"
    node.models.acquire(b)
    assert (await told(cluster, node, wanted.model_copy(update={"leaving": (b,)})))[0] == "429"
    node.models.release(b)
    code, found = await told(cluster, node, wanted.model_copy(update={"leaving": (b,)}))
    assert (code, found and found.changed, loaded(node)) == ("", True, [a, c])
    code, found = await told(cluster, node, wanted)
    assert (code, found and found.changed) == ("", False)


async def test_the_stored_forecast_is_shown_by_status(cluster: LocalCluster, own_nats: RunningNats) -> None:
    (model,) = models_of(cluster, 1)
    dispatcher = await cluster.dispatcher(WARMS, sees=0)
    await eventually(lambda: dispatcher.snapshot().prewarm_leader)
    cluster.bus.post(ARRIVALS_SUBJECT, ArrivalReport(arrivals={model: 500}).model_dump_json().encode())
    bucket = Bucket(cluster.bus, FORECAST)

    async def written() -> bool:
        entry = await bucket.get(STATE)
        return entry is not None and model in SavedForecast.model_validate_json(entry.value or b"").expected

    await eventually(written)
    words = ["status", "--nats", own_nats.url]
    result = await asyncio.to_thread(CliRunner().invoke, root, words, catch_exceptions=False)
    assert f"generations expected in the next 10 min: {model} " in result.stdout


async def test_invalid_reports_do_not_stop_the_prewarmer(cluster: LocalCluster) -> None:
    await Bucket(cluster.bus, FORECAST).put(STATE, b"not what it was")
    dispatcher = await cluster.dispatcher(WARMS, sees=0)
    await eventually(lambda: dispatcher.snapshot().prewarm_leader)
    cluster.bus.post(ARRIVALS_SUBJECT, b"nor this")
    cluster.bus.post(ARRIVALS_SUBJECT, ArrivalReport(arrivals={"m": 3}).model_dump_json().encode())
    await eventually(lambda: "m" in dispatcher.prewarmer.forecast.state(time.time()).models)
