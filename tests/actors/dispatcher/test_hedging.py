"""Generations that are late with their first token go to a second node as well, and one of them answers."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from actors.dispatcher import Dispatcher, DispatcherSettings
from actors.telemetry.tracing import start_span
from orchestration.errors import BackendFailed
from orchestration.messages import Generation, GenerationEnd, Priority
from orchestration.placement import BreakerSettings, HedgeSettings, Outcome
from tests.actors.dispatcher.conftest import DIRECT, QUEUED, TOGETHER
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import SETTINGS, LocalCluster
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import orchestra

WORDS = "one two three four five six seven eight"
FIRST, SECOND = "a-first", "b-second"
NEVER_S = 3600.0
"""To a first token that no test waits for."""
LATE_S = 0.05


@pytest.fixture(params=[QUEUED, DIRECT, TOGETHER])
def way(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


class Gate:
    """Holds the tokens of a node back until the test lets them out."""

    def __init__(self) -> None:
        self.tokens = asyncio.Semaphore(0)

    def settings(self, **settings: float) -> dict[str, Any]:
        """Settings of a node whose tokens are never due, so that it waits for the gate before each; without
        `speed`, before the first."""
        return {"first_token_s": NEVER_S, "sleep": self.sleep} | settings

    async def sleep(self, _: float) -> None:
        await self.tokens.acquire()

    def let_out(self, tokens: int) -> None:
        for _ in range(tokens):
            self.tokens.release()


def hedging(**changes: float) -> DispatcherSettings:
    """Settings under which a generation is late after `LATE_S`, once that was seen a few times."""
    wanted = HedgeSettings(min_samples=3, min_s=LATE_S).model_copy(update=changes)
    return SETTINGS.model_copy(update={"hedging": wanted})


async def dispatching(cluster: LocalCluster, settings: DispatcherSettings | None = None) -> Dispatcher:
    """A dispatcher that has seen the model begin within `LATE_S`. The node named first is the larger one and
    gets what comes first."""
    dispatcher = await cluster.dispatcher(settings or hedging())
    for _ in range(3):
        for executor in {dispatcher.executor, cluster.executor(dispatcher)}:
            executor.hedger.first_tokens.record(cluster.model, LATE_S, time.monotonic())
    return dispatcher


async def nodes(cluster: LocalCluster, *, first: dict[str, Any], second: dict[str, Any]) -> None:
    common: dict[str, Any] = {"slots": 16}
    await cluster.node(FIRST, **(common | first))
    await cluster.node(SECOND, **(common | {"slots": 4} | second))


def hedged(cluster: LocalCluster) -> dict[str, float]:
    """How often a generation of this cluster's model was sent twice, by what came of it."""
    found = {
        outcome: REGISTRY.get_sample_value(
            "orchestra_placement_hedges_total", {"model": cluster.model, "outcome": outcome}
        )
        for outcome in ("won", "lost", "failed")
    }
    return {outcome: count for outcome, count in found.items() if count}


async def begun(cluster: LocalCluster, generation: Generation) -> asyncio.Task[tuple[str, GenerationEnd]]:
    """Asked for, and at work on both nodes."""
    asked = asyncio.ensure_future(cluster.ask(generation))
    await eventually(lambda: cluster.running() == {FIRST: 1, SECOND: 1} | dict.fromkeys(others(cluster), 0))
    return asked


async def second_failed(cluster: LocalCluster, dispatcher: Dispatcher) -> None:
    """Wait until the generation was sent to the second node, too, and is only at the first one again."""
    labels = {"model": cluster.model, "node": SECOND}
    await eventually(lambda: REGISTRY.get_sample_value("orchestra_placement_placed_total", labels))
    await eventually(lambda: cluster.executor(dispatcher).in_flight.counts == {FIRST: 1})


def others(cluster: LocalCluster) -> set[str]:
    return cluster.nodes.keys() - {FIRST, SECOND}


async def test_a_late_generation_is_answered_by_the_second_node_and_stops_on_the_first(
    cluster: LocalCluster,
) -> None:
    gate = Gate()
    await nodes(cluster, first={"first_token_s": NEVER_S}, second=gate.settings(speed=1))
    dispatcher = await dispatching(cluster)
    asked = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS, tokens=60)))
    await eventually(lambda: cluster.running()[SECOND] == 1)
    gate.let_out(5)
    await eventually(lambda: cluster.running()[FIRST] == 0)
    assert not asked.done()
    assert cluster.executor(dispatcher).in_flight.counts == {SECOND: 1}
    gate.let_out(60)
    text, ended = await asked
    assert text.split() == (WORDS.split() * 8)[:60]
    assert (ended.finish.node, ended.finish.usage.completion_tokens) == (SECOND, 60)
    await cluster.settled(dispatcher)
    assert hedged(cluster) == {"won": 1}


async def test_the_second_node_stops_when_the_first_begins_after_all(cluster: LocalCluster) -> None:
    gate = Gate()
    await nodes(cluster, first=gate.settings(speed=1), second={"first_token_s": NEVER_S})
    dispatcher = await dispatching(cluster)
    asked = await begun(cluster, cluster.generation(WORDS, tokens=40))
    gate.let_out(5)
    await eventually(lambda: cluster.running()[SECOND] == 0)
    assert not asked.done()
    gate.let_out(40)
    text, ended = await asked
    assert text.split() == WORDS.split() * 5
    assert ended.finish.node == FIRST
    await cluster.settled(dispatcher)
    assert hedged(cluster) == {"lost": 1}


async def test_hundreds_with_slow_ones_among_them_are_each_one_stream(cluster: LocalCluster) -> None:
    slow = {"slow_every": 7, "slow_s": 1.0, "speed": 400, "slots": 32}
    await nodes(cluster, first=slow, second=slow)
    dispatcher = await dispatching(cluster, hedging(share=1.0, reserve=1000))
    answers = await asyncio.gather(*(cluster.ask(cluster.generation(f"{n} {WORDS}")) for n in range(300)))
    assert [text for text, _ in answers] == [f"{n} {WORDS}" for n in range(300)]
    assert {ended.finish.usage.completion_tokens for _, ended in answers} == {9}
    await cluster.settled(dispatcher)
    assert hedged(cluster)["won"] > 0


async def test_when_the_first_node_stops_during_the_race_the_second_answers(cluster: LocalCluster) -> None:
    gate = Gate()
    await nodes(cluster, first={"first_token_s": NEVER_S}, second=gate.settings())
    dispatcher = await dispatching(cluster)
    asked = await begun(cluster, cluster.generation(WORDS))
    await cluster.nodes[FIRST].leave()
    await cluster.nodes[FIRST].me.host.drain(0)
    gate.let_out(1)
    text, ended = await asked
    assert (text, ended.finish.node) == (WORDS, SECOND)
    await cluster.settled(dispatcher)


async def test_when_the_second_node_fails_during_the_race_the_first_answers(cluster: LocalCluster) -> None:
    gate = Gate()
    await nodes(cluster, first=gate.settings(), second={"fail_first": 1000})
    dispatcher = await dispatching(cluster)
    asked = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS)))
    await second_failed(cluster, dispatcher)
    gate.let_out(1)
    text, ended = await asked
    assert (text, ended.finish.node) == (WORDS, FIRST)
    await cluster.settled(dispatcher)
    assert hedged(cluster) == {"failed": 1}


async def test_a_refusal_by_the_second_node_is_ignored_while_the_first_may_answer(
    cluster: LocalCluster,
) -> None:
    short = "a b c d e f g h"  # eight tokens to echo, which placement guesses from its length
    gate = Gate()
    await nodes(cluster, first=gate.settings(), second={"context_tokens": 8})
    dispatcher = await dispatching(cluster)
    asked = asyncio.ensure_future(cluster.ask(cluster.generation(short)))
    await second_failed(cluster, dispatcher)
    gate.let_out(1)
    text, ended = await asked
    assert (text, ended.finish.node) == (short, FIRST)
    await cluster.settled(dispatcher)
    assert hedged(cluster) == {"failed": 1}


async def test_when_both_nodes_stop_during_the_race_a_third_answers(cluster: LocalCluster) -> None:
    await nodes(cluster, first={"first_token_s": NEVER_S}, second={"first_token_s": NEVER_S})
    dispatcher = await dispatching(cluster)
    asked = await begun(cluster, cluster.generation(WORDS))
    await cluster.node("c-third", slots=1)
    await eventually(lambda: len(dispatcher.registry.serving(cluster.model)) == 3)
    for name in (SECOND, FIRST):
        await cluster.nodes[name].leave()
        await cluster.nodes[name].me.host.drain(0)
    text, ended = await asked
    assert (text, ended.finish.node) == (WORDS, "c-third")
    await cluster.settled(dispatcher)
    assert hedged(cluster) == {"failed": 1}


async def test_the_caller_of_a_hedged_generation_gets_the_error_when_every_node_fails(
    cluster: LocalCluster,
) -> None:
    await nodes(cluster, first={"first_token_s": NEVER_S}, second={"fail_first": 1000})
    dispatcher = await dispatching(cluster)
    asked = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS)))
    labels = {"model": cluster.model, "node": SECOND}
    await eventually(lambda: REGISTRY.get_sample_value("orchestra_placement_placed_total", labels))
    await cluster.nodes[FIRST].leave()
    await cluster.nodes[FIRST].me.host.drain(0)
    with pytest.raises(BackendFailed):
        await asked
    await cluster.settled(dispatcher)


async def test_a_caller_who_leaves_during_the_race_stops_both_nodes(cluster: LocalCluster) -> None:
    await nodes(cluster, first={"first_token_s": NEVER_S}, second={"first_token_s": NEVER_S})
    dispatcher = await dispatching(cluster)
    asked = await begun(cluster, cluster.generation(WORDS))
    asked.cancel()
    await asyncio.wait({asked})
    await eventually(lambda: not any(cluster.running().values()))
    await cluster.settled(dispatcher)


async def test_the_answer_moves_to_another_node_when_the_winner_stops_later(cluster: LocalCluster) -> None:
    gate = Gate()
    await nodes(cluster, first={"first_token_s": NEVER_S}, second=gate.settings(speed=1))
    dispatcher = await dispatching(cluster)
    asked = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS, tokens=80)))
    await eventually(lambda: cluster.running()[SECOND] == 1)
    gate.let_out(10)
    await eventually(lambda: cluster.running() == {FIRST: 0, SECOND: 1})
    await cluster.node("c-third", slots=1)
    await eventually(lambda: len(dispatcher.registry.serving(cluster.model)) == 3)
    await cluster.nodes[SECOND].leave()
    await cluster.nodes[SECOND].me.host.drain(0)
    text, ended = await asked
    assert text.split() == WORDS.split() * 10
    assert (ended.finish.node, ended.finish.usage.completion_tokens) == ("c-third", 80)
    await cluster.settled(dispatcher)


async def test_a_second_node_is_never_waited_for(cluster: LocalCluster) -> None:
    gate = Gate()
    await nodes(cluster, first={"first_token_s": 0.5}, second=gate.settings(slots=1))
    dispatcher = await dispatching(cluster, hedging(share=1.0))
    await cluster.nodes[FIRST].leave()
    await eventually(lambda: len(dispatcher.registry.serving(cluster.model)) == 1)
    busy = asyncio.ensure_future(cluster.ask(cluster.generation("busy", priority=Priority.BATCH)))
    await eventually(lambda: cluster.running()[SECOND] == 1)
    await cluster.nodes[FIRST].join()
    await eventually(lambda: len(dispatcher.registry.serving(cluster.model)) == 2)
    _, ended = await cluster.ask(cluster.generation(WORDS))
    assert ended.finish.node == FIRST
    assert not busy.done()
    gate.let_out(1)
    await busy
    await cluster.settled(dispatcher)
    assert hedged(cluster) == {}


@pytest.mark.parametrize(
    ("settings", "priority"),
    [
        (hedging(share=0.0), Priority.INTERACTIVE),
        (hedging(min_samples=4), Priority.INTERACTIVE),
        (hedging(), Priority.STANDARD),
        (hedging(), Priority.BATCH),
    ],
    ids=["switched off", "too little known", "standard", "batch"],
)
async def test_others_are_not_sent_twice(
    cluster: LocalCluster, settings: DispatcherSettings, priority: Priority
) -> None:
    await nodes(cluster, first={"first_token_s": 0.4}, second={})
    dispatcher = await dispatching(cluster, settings)
    _, ended = await cluster.ask(cluster.generation(WORDS, priority=priority))
    assert ended.finish.node == FIRST
    await cluster.settled(dispatcher)
    assert hedged(cluster) == {}


async def test_a_node_whose_breaker_is_not_closed_gets_no_second_generation(cluster: LocalCluster) -> None:
    await nodes(cluster, first={"first_token_s": 0.4}, second={"fail_first": 1})
    quick = BreakerSettings(min_calls=1, dwell_s=0.001)  # so that it is half open at once
    dispatcher = await dispatching(cluster, hedging().model_copy(update={"breaker": quick, "attempts": 1}))
    failing = cluster.generation(WORDS, priority=Priority.BATCH).model_copy(
        update={"labels": {"node": SECOND}}
    )
    with pytest.raises(BackendFailed):
        await cluster.ask(failing)
    _, ended = await cluster.ask(cluster.generation(WORDS))
    assert ended.finish.node == FIRST
    await cluster.settled(dispatcher)
    assert hedged(cluster) == {}


async def test_no_more_are_sent_twice_than_the_budget_allows(cluster: LocalCluster) -> None:
    await nodes(cluster, first={"first_token_s": 0.6}, second={"slots": 8})
    dispatcher = await dispatching(cluster, hedging(share=0.1, reserve=2.0))
    asked = [asyncio.ensure_future(cluster.ask(cluster.generation(f"number {n}"))) for n in range(8)]
    answers = await asyncio.gather(*asked)
    assert [text for text, _ in answers] == [f"number {n}" for n in range(8)]
    await cluster.settled(dispatcher)
    assert hedged(cluster) == {"won": 2}


async def test_the_trace_shows_both_attempts(cluster: LocalCluster, spans: InMemorySpanExporter) -> None:
    await nodes(cluster, first={"first_token_s": NEVER_S}, second={})
    dispatcher = await dispatching(cluster)
    with start_span("the caller", "") as caller:
        await cluster.ask(cluster.generation(WORDS), trace=caller.traceparent)
    await cluster.settled(dispatcher)
    attempts = {
        (span.attributes or {})["orchestra.node"]: span
        for span in spans.get_finished_spans()
        if span.name.startswith("attempt on ")
    }
    assert attempts.keys() == {FIRST, SECOND}
    first, second = attempts[FIRST], attempts[SECOND]
    assert first.attributes is not None
    assert second.attributes is not None
    assert (first.attributes["orchestra.hedge"], second.attributes["orchestra.hedge"]) == (False, True)
    assert first.attributes["error.type"] == "hedge_lost"
    assert first.parent is not None
    assert second.parent is not None
    assert first.parent.span_id == second.parent.span_id


async def test_a_node_frozen_before_its_first_token_is_overtaken_and_does_no_harm_when_it_wakes(
    cluster: LocalCluster, nats_server: RunningNats, tmp_path: Path
) -> None:
    words = ("node", "--backend", "echo", "--id", FIRST, "--serve", cluster.model, "--slots", "16")
    place = ("--nats", nats_server.url, "--data", str(tmp_path))
    with orchestra(*words, *place, "--speed", "20", ORCHESTRA_ECHO__FIRST_TOKEN_S="0.5") as process:
        registry = await cluster.registry()
        await eventually(lambda: FIRST in registry.nodes)
        await cluster.node(SECOND, slots=4, speed=20)
        # So that it is the hedge that finds the frozen node, and not its silence.
        dispatcher = await cluster.dispatcher(hedging().model_copy(update={"ping_misses": 1000}), sees=2)
        for _ in range(3):
            cluster.executor(dispatcher).hedger.first_tokens.record(cluster.model, 0.3, time.monotonic())
        asked = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS, tokens=16)))
        await eventually(lambda: registry.nodes[FIRST].running == 1)
        process.send(signal.SIGSTOP)
        try:
            await eventually(lambda: cluster.running()[SECOND] == 1)
            await eventually(lambda: cluster.executor(dispatcher).in_flight.counts == {SECOND: 1})
        finally:
            process.send(signal.SIGCONT)
        text, ended = await asked
        assert text.split() == WORDS.split() * 2
        assert (ended.finish.node, ended.finish.usage.completion_tokens) == (SECOND, 16)
        await eventually(lambda: registry.nodes[FIRST].running == 0)
        await cluster.settled(dispatcher)
        assert hedged(cluster) == {"won": 1}


async def test_a_generation_that_tries_out_a_hung_node_is_answered_by_another_meanwhile(
    cluster: LocalCluster,
) -> None:
    await nodes(cluster, first={"first_token_s": NEVER_S}, second={})
    breaker = BreakerSettings(dwell_s=0.001, max_dwell_s=60, hung_s=0.001)
    changes = {"breaker": breaker, "hedging": HedgeSettings(probe_late_s=LATE_S)}
    dispatcher = await cluster.dispatcher(SETTINGS.model_copy(update=changes))
    chooser = cluster.executor(dispatcher).placer.chooser
    chooser.ended(cluster.model, FIRST, Outcome.HUNG, time.monotonic())
    tried = chooser.index.replicas[cluster.model][FIRST].breaker
    await eventually(lambda: tried.allows(time.monotonic()))
    text, ended = await cluster.ask(cluster.generation(WORDS))
    assert (text, ended.finish.node) == (WORDS, SECOND)
    await cluster.settled(dispatcher)
    assert hedged(cluster) == {"won": 1}
    assert tried.until  # it failed again
