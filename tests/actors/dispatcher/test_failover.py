"""A generation whose node fails, leaves or falls silent moves to another node; its caller sees one stream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings
from actors.cluster.registry import Registry
from actors.dispatcher.waiting_control import END_WAITING, EndWaiting
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.commands import ask_all
from actors.runtime.system import ActorSystem
from orchestration.errors import BackendFailed, CancelledByOperator
from tests.actors.dispatcher.conftest import DIRECT, QUEUED, TOGETHER
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import SETTINGS, LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats

WORDS = "one two three four five six seven eight"


@pytest.fixture(params=[QUEUED, DIRECT, TOGETHER])
def way(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


async def test_a_generation_continues_on_another_node_when_its_own_fails_in_the_middle(
    cluster: LocalCluster,
) -> None:
    await cluster.node("a", fail_every=1, fail_after=3, slots=8)
    await cluster.node("b", slots=4)
    dispatcher = await cluster.dispatcher()
    answers = await asyncio.gather(*(cluster.ask(cluster.generation(f"{n} {WORDS}")) for n in range(20)))
    assert [text for text, _ in answers] == [f"{n} {WORDS}" for n in range(20)]
    assert {ended.finish.node for _, ended in answers} == {"b"}
    assert {ended.finish.usage.completion_tokens for _, ended in answers} == {9}
    await cluster.settled(dispatcher)


async def test_no_node_counts_as_silent_while_nats_stands_still(
    own_nats: RunningNats,
) -> None:
    async with local_cluster(own_nats.url) as cluster:
        await cluster.node(speed=100)
        dispatcher = await cluster.dispatcher(
            SETTINGS.model_copy(update={"ping_interval_s": 0.02, "ping_misses": 5}),
            registry=Registry(cluster.bus, lease_s=3.0, sweep_s=0.05),
        )
        asked = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS, tokens=600)))
        await eventually(lambda: sum(cluster.running().values()) == 1)
        (opened,) = cluster.streams.readers.values()
        own_nats.freeze()
        frozen = cluster.executor(dispatcher).node_health.rounds
        await eventually(
            lambda: cluster.executor(dispatcher).node_health.rounds > frozen + 200
        )  # well beyond the lease
        own_nats.thaw()
        text, _ = await asked
        assert text == " ".join([WORDS] * 75)
        assert not opened.handed_off
        assert not dispatcher.snapshot().silent_nodes
        await cluster.settled(dispatcher)


async def test_no_more_nodes_than_the_settings_say_fail_under_one_generation(cluster: LocalCluster) -> None:
    for name in "abcd":
        await cluster.node(name, fail_every=1, fail_after=1)
    dispatcher = await cluster.dispatcher()
    with pytest.raises(BackendFailed):
        await cluster.ask(cluster.generation(WORDS))
    await cluster.settled(dispatcher)


async def test_an_error_is_final_when_no_other_node_has_the_labels(cluster: LocalCluster) -> None:
    await cluster.node("a", fail_first=1000)
    await cluster.node("b")
    dispatcher = await cluster.dispatcher()
    with pytest.raises(BackendFailed):
        await cluster.ask(cluster.generation().model_copy(update={"labels": {"node": "a"}}))
    await cluster.settled(dispatcher)


async def test_an_error_is_final_without_a_retry_budget(cluster: LocalCluster) -> None:
    await cluster.node("a", fail_first=1000, slots=8)
    await cluster.node("b", slots=4, fail_every=2)
    dispatcher = await cluster.dispatcher(
        SETTINGS.model_copy(update={"retry_share": 0.0, "retry_reserve": 1.0})
    )
    text, ended = await cluster.ask(cluster.generation())
    assert (text, ended.finish.node) == ("a few words", "b")
    with pytest.raises(BackendFailed):
        await cluster.ask(cluster.generation())
    await cluster.settled(dispatcher)


async def test_generations_that_a_leaving_node_cannot_finish_in_time_move_to_another(
    cluster: LocalCluster,
) -> None:
    leaver = await cluster.node("a", speed=50, slots=8)
    dispatcher = await cluster.dispatcher()
    asked = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS, tokens=2000)))
    await eventually(lambda: leaver.describe().running == 1)
    await cluster.node("b", speed=0)
    await eventually(lambda: len(dispatcher.registry.serving(cluster.model)) == 2)
    await leaver.leave()
    await leaver.me.host.drain(0.1)
    text, ended = await asked
    assert text == " ".join([WORDS] * 250)
    assert (ended.finish.node, ended.finish.usage.completion_tokens) == ("b", 2000)
    await cluster.settled(dispatcher)


@pytest.mark.parametrize(
    ("silent", "limit"), [({"stall_after": 3}, "stall_s"), ({"first_token_s": 60}, "first_output_s")]
)
async def test_a_generation_whose_backend_falls_silent_or_never_answers_moves_to_another_node(
    cluster: LocalCluster, silent: dict[str, Any], limit: str
) -> None:
    backend = EchoBackend(EchoSettings(models=(cluster.model,), slots=16, **silent))
    settings = NodeSettings.model_validate({"id": f"silent-{cluster.model[-8:]}", limit: 0.3})
    async with run_node(cluster.node_bus, backend, settings, ActorSystem()):
        await cluster.node("fine", slots=4)
        dispatcher = await cluster.dispatcher(sees=2)
        answers = await asyncio.gather(*(cluster.ask(cluster.generation(WORDS)) for _ in range(12)))
        assert [text for text, _ in answers] == [WORDS] * 12
        assert {ended.finish.node for _, ended in answers} == {"fine"}
        await cluster.settled(dispatcher)


async def test_when_all_nodes_of_a_model_fail_the_next_declared_model_answers(cluster: LocalCluster) -> None:
    other = LocalCluster(cluster.bus, cluster.node_bus, cluster.streams, cluster.stack)
    await cluster.node("bad", fail_every=1, fail_after=3)
    await other.node("good")
    declared = {cluster.model: ("not-served", other.model)}
    dispatcher = await cluster.dispatcher(SETTINGS.model_copy(update={"fallbacks": declared}))
    await eventually(lambda: dispatcher.registry.serving(other.model))
    text, ended = await cluster.ask(cluster.generation(WORDS))
    assert text == WORDS
    assert (ended.finish.model, ended.finish.node) == (other.model, "good")
    await cluster.settled(dispatcher)


async def test_a_purge_ends_what_waits_for_a_fallback_of_the_purged_model(cluster: LocalCluster) -> None:
    other = LocalCluster(cluster.bus, cluster.node_bus, cluster.streams, cluster.stack)
    node = await other.node(slots=1, first_token_s=60)
    declared = {cluster.model: (other.model,)}
    dispatcher = await cluster.dispatcher(SETTINGS.model_copy(update={"fallbacks": declared}))
    await eventually(lambda: dispatcher.registry.serving(other.model))
    asked = [asyncio.ensure_future(cluster.ask(cluster.generation(WORDS))) for _ in range(3)]
    await eventually(
        lambda: node.describe().running == 1 and sum(dispatcher.snapshot().waiting.get(other.model, ())) == 2
    )
    wanted = EndWaiting(model=cluster.model, last=2**62, error="too many")
    ended = await ask_all(cluster.bus, END_WAITING, wanted.model_dump())
    assert [each.data for each in ended.answers] == [2]
    done, running = await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
    assert {type(each.exception()) for each in done} == {CancelledByOperator}
    assert len(running) == 1
    for each in running:
        each.cancel()


async def test_generations_of_a_node_that_lost_its_connection_continue(
    cluster: LocalCluster, nats_server: RunningNats
) -> None:
    """The node lives, but what it said meanwhile is lost, such as that it is done."""
    bus = await Bus.connect(BusSettings(url=nats_server.url, reconnect_wait_s=0.05), name="cut")
    await cluster.node("cut", bus=bus, speed=20)
    dispatcher = await cluster.dispatcher()
    asked = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS, tokens=40)))
    await eventually(lambda: any(cluster.executor(dispatcher).node_health.connections.values()))
    before = bus.connection_id
    bus.nats.abort()
    await eventually(lambda: bus.connected and bus.connection_id != before)
    text, ended = await asked
    assert text == " ".join([WORDS] * 5)
    assert ended.finish.usage.completion_tokens == 40
    await cluster.settled(dispatcher)
    await cluster.stack.aclose()
    await bus.close()
