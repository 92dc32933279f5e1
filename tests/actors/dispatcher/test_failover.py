"""Generations whose node fails, leaves or falls silent go on elsewhere, and their callers see one stream."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings
from actors.bus.jetstream import Delivery
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.system import ActorSystem
from orchestration.errors import BackendFailed
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.stage import SETTINGS, Stage
from tests.fixtures.stage import stage as set_up

WORDS = "one two three four five six seven eight"


async def test_a_generation_goes_on_at_another_node_when_its_own_fails_in_the_middle(stage: Stage) -> None:
    await stage.node("a", fail_every=1, fail_after=3, slots=8)
    await stage.node("b", slots=4)
    dispatcher = await stage.dispatcher()
    answers = await asyncio.gather(*(stage.ask(stage.generation(f"{n} {WORDS}")) for n in range(20)))
    assert [text for text, _ in answers] == [f"{n} {WORDS}" for n in range(20)]
    assert {ended.finish.node for _, ended in answers} == {"b"}
    assert {ended.finish.usage.completion_tokens for _, ended in answers} == {9}
    await stage.settled(dispatcher)


async def test_of_two_dispatchers_with_one_generation_the_earlier_leaves_it_to_the_later(
    stage: Stage,
) -> None:
    """As after NATS was away: it gave the generation out again, and the first one has it still."""
    for name in "ab":
        await stage.node(name, speed=10)
    impatient = SETTINGS.model_copy(update={"takeover_quiet_s": 0.02})
    first = await stage.dispatcher(impatient)
    deliveries: list[Delivery] = []
    deliver = first.queues.deliver

    def keep_and_deliver(delivery: Delivery) -> None:
        deliveries.append(delivery)
        deliver(delivery)

    first.queues.deliver = keep_and_deliver
    asked = asyncio.ensure_future(stage.ask(stage.generation(WORDS, tokens=48)))
    await eventually(lambda: sum(stage.running().values()) == 1)
    await first.queues.stop()
    second = await stage.dispatcher(impatient)
    deliveries[0].settle(b"-NAK")
    await eventually(lambda: second.snapshot().generations and not first.snapshot().generations)
    assert not asked.done()
    text, _ = await asked
    assert text == " ".join([WORDS] * 6)
    await stage.settled(first, second)


async def test_no_node_counts_as_silent_while_nats_stands_still(
    own_nats: RunningNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.cluster.registry.LEASE_S", 3.0)
    monkeypatch.setattr("actors.cluster.registry.SWEEP_S", 0.05)
    async with set_up(own_nats.url) as stage:
        await stage.node(speed=100)
        dispatcher = await stage.dispatcher(
            SETTINGS.model_copy(update={"ping_interval_s": 0.02, "ping_misses": 5})
        )
        asked = asyncio.ensure_future(stage.ask(stage.generation(WORDS, tokens=600)))
        await eventually(lambda: sum(stage.running().values()) == 1)
        (opened,) = stage.streams._open.values()
        own_nats.process.send_signal(signal.SIGSTOP)
        frozen = dispatcher.node_health.rounds
        await eventually(lambda: dispatcher.node_health.rounds > frozen + 200)  # well beyond the lease
        own_nats.process.send_signal(signal.SIGCONT)
        text, _ = await asked
        assert text == " ".join([WORDS] * 75)
        assert not opened._handed_over
        assert not dispatcher.snapshot().silent_nodes
        await stage.settled(dispatcher)


async def test_no_more_nodes_than_the_settings_say_fail_under_one_generation(stage: Stage) -> None:
    for name in "abcd":
        await stage.node(name, fail_every=1, fail_after=1)
    dispatcher = await stage.dispatcher()
    with pytest.raises(BackendFailed):
        await stage.ask(stage.generation(WORDS))
    await stage.settled(dispatcher)


async def test_an_error_is_told_at_once_where_no_other_node_has_the_labels(stage: Stage) -> None:
    await stage.node("a", fail_first=1000)
    await stage.node("b")
    dispatcher = await stage.dispatcher()
    with pytest.raises(BackendFailed):
        await stage.ask(stage.generation().model_copy(update={"labels": {"node": "a"}}))
    await stage.settled(dispatcher)


async def test_without_a_budget_an_error_is_told_and_not_tried_again(stage: Stage) -> None:
    await stage.node("a", fail_first=1000, slots=8)
    await stage.node("b", slots=4, fail_every=2)
    dispatcher = await stage.dispatcher(
        SETTINGS.model_copy(update={"retry_share": 0.0, "retry_reserve": 1.0})
    )
    text, ended = await stage.ask(stage.generation())
    assert (text, ended.finish.node) == ("a few words", "b")
    with pytest.raises(BackendFailed):
        await stage.ask(stage.generation())
    await stage.settled(dispatcher)


async def test_what_a_node_cannot_finish_in_time_when_it_leaves_goes_on_elsewhere(stage: Stage) -> None:
    leaver = await stage.node("a", speed=50, slots=8)
    dispatcher = await stage.dispatcher()
    asked = asyncio.ensure_future(stage.ask(stage.generation(WORDS, tokens=200)))
    await eventually(lambda: leaver.describe().running == 1)
    await stage.node("b", speed=0)
    await eventually(lambda: len(dispatcher.registry.serving(stage.model)) == 2)
    await leaver.leave()
    await leaver.me.host.drain(0.1)
    text, ended = await asked
    assert text == " ".join([WORDS] * 25)
    assert (ended.finish.node, ended.finish.usage.completion_tokens) == ("b", 200)
    await stage.settled(dispatcher)


@pytest.mark.parametrize(
    ("silent", "limit"), [({"stall_after": 3}, "stall_s"), ({"first_token_s": 60}, "first_output_s")]
)
async def test_a_generation_whose_backend_falls_silent_or_says_nothing_at_all_goes_on_elsewhere(
    stage: Stage, silent: dict[str, Any], limit: str
) -> None:
    backend = EchoBackend(EchoSettings(models=(stage.model,), slots=16, **silent))
    settings = NodeSettings.model_validate({"id": f"silent-{stage.model[-8:]}", limit: 0.3})
    async with run_node(stage.bus, backend, settings, ActorSystem()):
        await stage.node("fine", slots=4)
        dispatcher = await stage.dispatcher(sees=2)
        answers = await asyncio.gather(*(stage.ask(stage.generation(WORDS)) for _ in range(12)))
        assert [text for text, _ in answers] == [WORDS] * 12
        assert {ended.finish.node for _, ended in answers} == {"fine"}
        await stage.settled(dispatcher)


async def test_when_all_nodes_of_a_model_fail_the_next_declared_model_answers(stage: Stage) -> None:
    other = Stage(stage.bus, stage.streams, stage.stack)
    await stage.node("bad", fail_every=1, fail_after=3)
    await other.node("good")
    declared = {stage.model: ("not-served", other.model)}
    dispatcher = await stage.dispatcher(SETTINGS.model_copy(update={"fallbacks": declared}))
    await eventually(lambda: dispatcher.registry.serving(other.model))
    text, ended = await stage.ask(stage.generation(WORDS))
    assert text == WORDS
    assert (ended.finish.model, ended.finish.node) == (other.model, "good")
    await stage.settled(dispatcher)


async def test_what_a_node_was_at_when_it_lost_its_connection_goes_on(
    stage: Stage, nats_server: RunningNats
) -> None:
    """The node lives, but what it said meanwhile is lost, such as that it is done."""
    bus = await Bus.connect(BusSettings(url=nats_server.url, reconnect_wait_s=0.05), name="cut")
    await stage.node("cut", bus=bus, speed=20)
    dispatcher = await stage.dispatcher()
    asked = asyncio.ensure_future(stage.ask(stage.generation(WORDS, tokens=40)))
    await eventually(lambda: any(dispatcher.node_health.connections.values()))
    before = bus.connection_id
    bus.nats.abort()
    await eventually(lambda: bus.connected and bus.connection_id != before)
    text, ended = await asked
    assert text == " ".join([WORDS] * 5)
    assert ended.finish.usage.completion_tokens == 40
    await stage.settled(dispatcher)
    await stage.stack.aclose()
    await bus.close()
