from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from prometheus_client import REGISTRY

from actors.bus.bus import Message
from actors.bus.depth_reader import read_depth
from actors.bus.jetstream import Delivery, enqueue
from actors.bus.subjects import GenerationQueue
from actors.cli.placement import explanations
from actors.dispatcher import Dispatcher, DispatcherSettings
from actors.placement.node_client import NodeClient
from actors.runtime.envelope import Envelope
from actors.streams.client import ID_HEADER
from orchestration.errors import (
    BackendFailed,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    OrchestraError,
)
from orchestration.messages import GenerationEnd, Priority, StreamEvent, WriterAlive, decode_events
from orchestration.placement import NEEDS_HEADER, BreakerSettings, Needs, needs_of
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import SETTINGS, LocalCluster
from tests.fixtures.small_memory import models_of, of, small_node


async def test_a_generation_comes_back_as_a_stream(cluster: LocalCluster) -> None:
    node = await cluster.node()
    dispatcher = await cluster.dispatcher()
    text, ended = await cluster.ask(cluster.generation("say this again"))
    assert text == "say this again"
    assert (ended.finish.node, ended.finish.model, ended.finish.reason) == (node.id, cluster.model, "stop")
    await cluster.settled(dispatcher)


async def test_two_thousand_generations_are_answered_once_each_and_leave_nothing(
    cluster: LocalCluster,
) -> None:
    for _ in range(2):
        await cluster.node(slots=16)
    dispatchers = [await cluster.dispatcher() for _ in range(2)]
    for start in range(0, 2000, 200):  # all at once keep a busy machine from acknowledging each within 3 s
        asked = [f"number {n}" for n in range(start, start + 200)]
        answers = await asyncio.gather(*(cluster.ask(cluster.generation(words)) for words in asked))
        assert [text for text, _ in answers] == asked
    await cluster.settled(*dispatchers)
    assert cluster.streams.open_streams == 0
    assert not any(cluster.running().values())


async def test_no_node_gets_more_than_its_slots(cluster: LocalCluster) -> None:
    nodes = [await cluster.node(slots=3, speed=200), await cluster.node(slots=5, speed=200)]
    dispatcher = await cluster.dispatcher()
    most = dict.fromkeys(cluster.nodes, 0)

    async def watch() -> None:
        while True:
            for name, running in cluster.running().items():
                most[name] = max(most[name], running)
            await asyncio.sleep(0)

    watching = asyncio.ensure_future(watch())
    answers = await asyncio.gather(*(cluster.ask(cluster.generation(tokens=8)) for _ in range(60)))
    watching.cancel()
    assert len(answers) == 60
    assert most == {nodes[0].id: 3, nodes[1].id: 5}
    await cluster.settled(dispatcher)


async def test_equal_nodes_share_by_their_slots(cluster: LocalCluster) -> None:
    await cluster.node("small", slots=2, speed=50)
    await cluster.node("large", slots=6, speed=50)
    await cluster.dispatcher()
    asked = [asyncio.ensure_future(cluster.ask(cluster.generation(tokens=20))) for _ in range(4)]
    await eventually(lambda: sum(cluster.running().values()) == 4)
    assert cluster.running() == {"small": 1, "large": 3}
    await asyncio.gather(*asked)


async def test_the_urgent_ones_overtake_those_that_wait(cluster: LocalCluster) -> None:
    await cluster.node(slots=1, speed=50)
    await cluster.dispatcher()
    order: list[str] = []

    async def ask(name: str, priority: Priority, tokens: int = 2) -> None:
        await cluster.ask(cluster.generation(tokens=tokens, priority=priority))
        order.append(name)

    first = asyncio.ensure_future(ask("first", Priority.BATCH, 10))
    await eventually(lambda: sum(cluster.running().values()) == 1)
    others = [
        asyncio.ensure_future(ask(name, priority))
        for name, priority in (
            ("batch", Priority.BATCH),
            ("standard", Priority.STANDARD),
            ("interactive", Priority.INTERACTIVE),
        )
    ]
    await asyncio.gather(first, *others)
    assert order == ["first", "interactive", "standard", "batch"]


async def test_a_backlog_of_lesser_work_takes_nothing_from_urgent_work(cluster: LocalCluster) -> None:
    await cluster.node(slots=1, speed=50)
    dispatcher = await cluster.dispatcher()
    order: list[Priority] = []

    async def ask(priority: Priority) -> None:
        await cluster.ask(cluster.generation(tokens=3, priority=priority))
        order.append(priority)

    backlog = [asyncio.ensure_future(ask(Priority.BATCH)) for _ in range(6)]
    backlog += [asyncio.ensure_future(ask(Priority.STANDARD)) for _ in range(6)]
    await eventually(lambda: order)
    urgent = [asyncio.ensure_future(ask(Priority.INTERACTIVE)) for _ in range(6)]
    await asyncio.gather(*urgent)
    at_most = 3  # that had begun, or were begun before the urgent ones were in the queue
    assert len(order) <= 6 + at_most
    await asyncio.gather(*backlog)
    after = order[6 + at_most :]
    assert after == sorted(after, key=[Priority.STANDARD, Priority.BATCH].index)
    await cluster.settled(dispatcher)


async def test_a_generation_that_a_node_fails_before_it_wrote_anything_goes_to_another(
    cluster: LocalCluster,
) -> None:
    await cluster.node("a-broken", fail_first=1000, slots=8)
    await cluster.node("b-fine", slots=4)
    dispatcher = await cluster.dispatcher()
    answers = await asyncio.gather(*(cluster.ask(cluster.generation(f"n {n}")) for n in range(20)))
    assert {ended.finish.node for _, ended in answers} == {"b-fine"}
    assert [text for text, _ in answers] == [f"n {n}" for n in range(20)]
    await cluster.settled(dispatcher)


async def test_the_caller_gets_the_last_error_when_every_node_fails(cluster: LocalCluster) -> None:
    for _ in range(2):
        await cluster.node(fail_first=1000)
    dispatcher = await cluster.dispatcher()
    with pytest.raises(BackendFailed, match="echo fails its first"):
        await cluster.ask(cluster.generation())
    await cluster.settled(dispatcher)


async def test_a_request_that_no_node_could_serve_is_not_tried_again(cluster: LocalCluster) -> None:
    await cluster.node("a")
    await cluster.node("b")
    await cluster.dispatcher()
    generation = cluster.generation().model_copy(update={"messages": ()})
    with pytest.raises(InvalidRequest) as refused:
        await cluster.ask(generation)
    assert refused.value.param == "messages"


async def test_a_node_that_was_busier_than_reported_is_tried_again(cluster: LocalCluster) -> None:
    node = await cluster.node(slots=1)
    dispatcher = await cluster.dispatcher()
    task = asyncio.current_task()
    assert task is not None
    node._active["somebody.else"] = task  # which the registry has not heard of yet
    asked = asyncio.ensure_future(cluster.ask(cluster.generation()))
    labels = {"model": cluster.model, "node": node.id}
    await eventually(
        lambda: (REGISTRY.get_sample_value("orchestra_placement_placed_total", labels) or 0) >= 3
    )
    assert not asked.done()
    del node._active["somebody.else"]
    text, _ = await asked
    assert text == "a few words"
    await cluster.settled(dispatcher)


async def test_a_crashed_dispatcher_restarts_and_generations_in_progress_are_finished(
    cluster: LocalCluster,
) -> None:
    await cluster.node(speed=50)
    first = await cluster.dispatcher()
    asked = asyncio.ensure_future(cluster.ask(cluster.generation("before", tokens=25)))
    await eventually(lambda: sum(cluster.running().values()) == 1)

    async def crash() -> None:
        raise KeyError("a defect")

    first.run_loop(crash())
    await eventually(lambda: first.me.host.actor is not first and first.me.host.state == "running")
    second = first.me.host.actor
    assert isinstance(second, Dispatcher)
    text, _ = await cluster.ask(cluster.generation("after"))
    assert text == "after"
    text, _ = await asked
    assert text == " ".join(["before"] * 25)
    await cluster.settled(first, second)


def give_back_once(dispatcher: Dispatcher) -> None:
    """The next generation comes to the dispatcher as if another had had it before."""
    given_back: list[Delivery] = []

    def deliver(delivery: Delivery) -> None:
        if not given_back:
            given_back.append(delivery)
            delivery.settle(b"-NAK")
        else:
            pulled(delivery)

    pulled, dispatcher.queues.deliver = dispatcher.queues.deliver, deliver


@pytest.mark.parametrize("attempt", [1, 2], ids=["while it is placed", "while it is taken up"])
async def test_a_defect_met_by_one_generation_ends_that_one_alone(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    await cluster.node(speed=50)
    dispatcher = await cluster.dispatcher()
    innocent = asyncio.ensure_future(cluster.ask(cluster.generation("innocent", tokens=25)))
    await eventually(lambda: sum(cluster.running().values()) == 1)

    async def defect(*_: object, **__: object) -> None:
        raise KeyError("a defect")

    if attempt == 1:
        monkeypatch.setattr(NodeClient, "_call", defect)
    else:
        monkeypatch.setattr("actors.streams.handoff.RemoteReader.position", defect)
        give_back_once(dispatcher)
    for _ in range(7 if attempt == 1 else 1):
        with pytest.raises(InternalError, match="KeyError: 'a defect'"):
            await cluster.ask(cluster.generation())
    monkeypatch.undo()
    assert dispatcher.me.host.actor is dispatcher
    text, _ = await innocent
    assert text == " ".join(["innocent"] * 25)
    text, _ = await cluster.ask(cluster.generation("after"))
    assert text == "after"


async def test_a_generation_is_taken_up_though_its_reader_is_of_another_version(
    cluster: LocalCluster,
) -> None:
    await cluster.node()
    dispatcher = await cluster.dispatcher()
    await cluster.ask(cluster.generation())
    give_back_once(dispatcher)
    bus, told = cluster.bus, asyncio.get_running_loop().create_future()
    generation = cluster.generation("again").model_copy(update={"id": f"later-{cluster.streams.name}.1"})

    def hear(message: Message) -> None:
        event = decode_events(message.data)[-1].event
        if isinstance(event, GenerationEnd):
            told.set_result(event)

    await bus.subscribe(
        f"stream_handoff.{generation.id}", lambda asked: bus.post(asked.reply, b'{"open": "maybe"}')
    )
    await bus.subscribe(f"stream.{generation.id}", hear)
    subject = GenerationQueue(Priority.INTERACTIVE, cluster.model).subject
    await enqueue(bus, subject, generation.model_dump_json().encode(), {ID_HEADER: generation.id})
    assert (await asyncio.wait_for(told, 10)).finish.reason == "stop"
    assert dispatcher.me.host.actor is dispatcher
    await cluster.settled(dispatcher)


async def test_a_generation_waits_no_longer_than_its_deadline(cluster: LocalCluster) -> None:
    await cluster.node(slots=1, speed=20)
    dispatcher = await cluster.dispatcher()
    busy = asyncio.ensure_future(cluster.ask(cluster.generation(tokens=10_000)))
    await eventually(lambda: sum(cluster.running().values()) == 1)
    with pytest.raises(DeadlineExceeded):
        await cluster.ask(cluster.generation(), within_s=0.3)
    await eventually(lambda: len(dispatcher.snapshot().generations) == 1)
    busy.cancel()
    await cluster.settled(dispatcher)


async def test_the_deadline_reaches_the_node(cluster: LocalCluster) -> None:
    await cluster.node(speed=10)
    dispatcher = await cluster.dispatcher()
    with pytest.raises(DeadlineExceeded):
        await cluster.ask(cluster.generation(tokens=1000), within_s=0.5)
    await eventually(lambda: not any(cluster.running().values()))
    await cluster.settled(dispatcher)


async def test_a_generation_cancelled_in_the_queue_never_runs(cluster: LocalCluster) -> None:
    dispatcher = await cluster.dispatcher(sees=0)  # so that nobody pulls yet
    generation = cluster.generation()
    asked = asyncio.ensure_future(cluster.ask(generation))
    await eventually(lambda: cluster.streams.open_streams == 1)
    await cluster.bus.flush()
    asked.cancel()
    await asyncio.wait({asked})
    await eventually(lambda: generation.id in dispatcher.snapshot().cancelled)
    node = await cluster.node(speed=10)
    text, _ = await cluster.ask(cluster.generation("the next one"))
    assert text == "the next one"
    await cluster.settled(dispatcher)
    assert node.describe().running == 0


def counts(dispatcher: Dispatcher) -> tuple[int, int]:
    """Generations that wait, and all that were pulled."""
    snapshot = dispatcher.snapshot()
    return snapshot.total_waiting, len(snapshot.generations)


async def test_a_generation_cancelled_while_it_waits_is_settled_at_once(cluster: LocalCluster) -> None:
    await cluster.node(slots=1, speed=20)
    dispatcher = await cluster.dispatcher()
    busy = asyncio.ensure_future(cluster.ask(cluster.generation(tokens=10_000, priority=Priority.BATCH)))
    await eventually(lambda: sum(cluster.running().values()) == 1)
    first = asyncio.ensure_future(cluster.ask(cluster.generation()))
    last = asyncio.ensure_future(cluster.ask(cluster.generation(priority=Priority.STANDARD)))
    await eventually(lambda: dispatcher.snapshot().total_waiting == 2)
    last.cancel()
    await eventually(lambda: counts(dispatcher) == (1, 2))
    busy.cancel()
    await first
    await cluster.settled(dispatcher)


async def leave_behind(
    cluster: LocalCluster, count: int, first: asyncio.Future[tuple[str, GenerationEnd]]
) -> None:
    """So many ask after the first, and leave when all are in the queue."""
    asked = [asyncio.ensure_future(cluster.ask(cluster.generation())) for _ in range(count)]

    async def queued() -> bool:
        return await cluster.queued() == count + 1

    await eventually(queued)
    assert not first.done()
    for each in asked:
        each.cancel()
    await asyncio.wait(asked)


async def test_callers_that_leave_leave_nothing_in_the_queue_while_all_nodes_are_busy(
    cluster: LocalCluster,
) -> None:
    await cluster.node(slots=1, speed=5)
    dispatcher = await cluster.dispatcher()
    busy = asyncio.ensure_future(cluster.ask(cluster.generation(tokens=10_000)))
    await leave_behind(cluster, 300, busy)

    async def only_the_first() -> bool:
        return await cluster.queued() == 1

    await eventually(only_the_first)
    busy.cancel()
    await cluster.settled(dispatcher)


async def test_callers_that_leave_make_room_for_the_next_at_once(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the client had died.
    monkeypatch.setattr(cluster.streams.withdrawals, "add", lambda receipt: None)
    await cluster.node(slots=1, speed=5)
    dispatcher = await cluster.dispatcher(SETTINGS.model_copy(update={"keep_alive_s": 600}))
    busy = asyncio.ensure_future(cluster.ask(cluster.generation(tokens=10_000)))
    await eventually(lambda: sum(cluster.running().values()) == 1)
    await leave_behind(cluster, 300, busy)
    busy.cancel()
    text, _ = await cluster.ask(cluster.generation("the next"))
    assert text == "the next"
    await cluster.settled(dispatcher)


async def test_expired_generations_in_the_queue_are_dropped_in_bulk(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.streams, "_cancel", lambda work_id: None)  # as of a gateway that was killed
    monkeypatch.setattr(cluster.streams.withdrawals, "add", lambda receipt: None)
    asked = [asyncio.ensure_future(cluster.ask(cluster.generation(), within_s=0.2)) for _ in range(100)]
    await asyncio.wait(asked)
    assert all(isinstance(each.exception(), DeadlineExceeded) for each in asked)
    await cluster.node(slots=1)
    dispatcher = await cluster.dispatcher()
    text, _ = await cluster.ask(cluster.generation("the next"))
    assert text == "the next"
    await cluster.settled(dispatcher)


async def test_callers_that_leave_a_model_without_a_node_leave_no_queue_behind(
    cluster: LocalCluster,
) -> None:
    asked = [asyncio.ensure_future(cluster.ask(cluster.generation())) for _ in range(50)]

    async def queued() -> bool:
        return await cluster.queued() == 50

    await eventually(queued)
    for each in asked:
        each.cancel()

    async def empty() -> bool:
        return not await cluster.queued()

    await eventually(empty)


async def test_a_generation_cancelled_at_work_stops_on_its_node(cluster: LocalCluster) -> None:
    await cluster.node(speed=20)
    dispatcher = await cluster.dispatcher()
    async with aclosing(
        cluster.streams.stream(cluster.generation(tokens=10_000), Envelope.within(30))
    ) as events:
        async for _ in events:
            break
    await eventually(lambda: not any(cluster.running().values()))
    await cluster.settled(dispatcher)


async def test_a_generation_that_waits_for_a_node_that_has_gone_says_so_at_its_deadline(
    cluster: LocalCluster,
) -> None:
    await cluster.node(slots=1, speed=5)
    dispatcher = await cluster.dispatcher()
    busy = asyncio.ensure_future(cluster.ask(cluster.generation(tokens=1000, priority=Priority.BATCH)))
    await eventually(lambda: sum(cluster.running().values()) == 1)
    told: list[StreamEvent | WriterAlive] = []
    # Of no client: what this process sends to a stream of its own does not go over the server.
    generation = cluster.generation().model_copy(update={"id": f"later-{cluster.streams.name}.1"})
    await cluster.bus.subscribe(
        f"stream.{generation.id}",
        lambda message: told.extend(frame.event for frame in decode_events(message.data)),
    )
    # Not through a StreamClient: that one takes its work back at the same moment.
    headers = Envelope.within(1).headers() | {
        ID_HEADER: generation.id,
        NEEDS_HEADER: needs_of(generation).encode(),
    }
    subject = GenerationQueue(generation.priority, generation.model).subject
    await cluster.bus.publish(subject, generation.model_dump_json().encode(), headers=headers)
    await eventually(lambda: dispatcher.snapshot().total_waiting == 1)
    await next(iter(cluster.nodes.values())).leave()
    await eventually(lambda: told)
    assert isinstance(told[0], GenerationEnd)
    assert told[0].error is not None
    assert told[0].error.code == "no_node"
    busy.cancel()
    await asyncio.wait({busy})


async def test_two_dispatchers_share_the_work(cluster: LocalCluster) -> None:
    for _ in range(2):
        await cluster.node(slots=4, speed=10)
    impatient = SETTINGS.model_copy(update={"starving_s": 0.2})
    dispatchers = [await cluster.dispatcher(impatient) for _ in range(2)]
    seen: list[set[str]] = [set(), set()]

    async def watch() -> None:
        while True:
            for ids, dispatcher in zip(seen, dispatchers, strict=True):
                ids.update(dispatcher.snapshot().generations)
            await asyncio.sleep(0.01)  # a generation takes 0.3 s at least

    watching = asyncio.ensure_future(watch())
    asked = [f"number {n}" for n in range(200)]
    answers = await asyncio.gather(*(cluster.ask(cluster.generation(words)) for words in asked))
    watching.cancel()
    assert [text for text, _ in answers] == asked
    assert min(len(ids) for ids in seen) > 10
    assert not seen[0] & seen[1]
    await cluster.settled(*dispatchers)


async def test_a_draining_dispatcher_finishes_its_answers_and_returns_waiting_generations(
    cluster: LocalCluster,
) -> None:
    await cluster.node(slots=1, speed=50)
    first = await cluster.dispatcher()
    asked = [
        asyncio.ensure_future(cluster.ask(cluster.generation(f"number {n}", tokens=10, priority=priority)))
        for n, priority in enumerate(Priority)
    ]
    await eventually(lambda: len(first.snapshot().generations) == 3)
    second = await cluster.dispatcher()
    await first.leave()
    assert await first.me.host.drain(10)
    answers = await asyncio.gather(*asked)
    assert [text.split()[1] for text, _ in answers] == ["0", "1", "2"]
    assert not first.snapshot().generations
    await cluster.settled(first, second)


async def test_a_dispatcher_stopped_at_its_limit_tells_the_callers_and_stops_the_node(
    cluster: LocalCluster,
) -> None:
    await cluster.node(speed=10)
    dispatcher = await cluster.dispatcher()
    asked = asyncio.ensure_future(cluster.ask(cluster.generation(tokens=10_000)))
    await eventually(lambda: sum(cluster.running().values()) == 1)
    await dispatcher.leave()
    assert not await dispatcher.me.host.drain(0.1)
    with pytest.raises(OrchestraError, match="stopped before the answer was complete"):
        await asyncio.wait_for(asked, 30)
    await cluster.settled(dispatcher)


async def test_a_message_that_is_no_generation_is_thrown_out(cluster: LocalCluster) -> None:
    await cluster.node()
    await cluster.dispatcher()
    subject = GenerationQueue(Priority.INTERACTIVE, cluster.model).subject
    await enqueue(cluster.bus, subject, b"rubbish", {})
    await enqueue(cluster.bus, subject, b"rubbish", {ID_HEADER: "*.>"})
    generation = cluster.generation()
    events = cluster.streams.follow(
        generation.id,
        Envelope.within(60),
        lambda reply: cluster.bus.publish(subject, b"rubbish", headers={ID_HEADER: generation.id}),
    )
    with pytest.raises(InvalidRequest):
        await anext(events)
    await cluster.settled()


async def test_models_beyond_the_limit_are_served_once_others_have_left(cluster: LocalCluster) -> None:
    other = LocalCluster(cluster.bus, cluster.node_bus, cluster.streams, cluster.stack)
    first = await cluster.node()
    await cluster.dispatcher(DispatcherSettings(max_models=1))
    await cluster.ask(cluster.generation())
    await other.node()
    waiting = asyncio.ensure_future(other.ask(other.generation("at last")))
    await first.leave()
    text, _ = await waiting
    assert text == "at last"


async def test_of_two_dispatchers_with_one_generation_the_earlier_leaves_it_to_the_later(
    cluster: LocalCluster,
) -> None:
    """As after NATS was away: it gave the generation out again, and the first one has it still."""
    for name in "ab":
        await cluster.node(name, speed=10)
    impatient = SETTINGS.model_copy(update={"takeover_quiet_s": 0.02})
    first = await cluster.dispatcher(impatient)
    deliveries: list[Delivery] = []
    deliver = first.queues.deliver

    def keep_and_deliver(delivery: Delivery) -> None:
        deliveries.append(delivery)
        deliver(delivery)

    first.queues.deliver = keep_and_deliver
    asked = asyncio.ensure_future(cluster.ask(cluster.generation("one two three", tokens=48)))
    await eventually(lambda: sum(cluster.running().values()) == 1)
    await first.queues.stop()
    second = await cluster.dispatcher(impatient)
    deliveries[0].settle(b"-NAK")
    await eventually(lambda: second.snapshot().generations and not first.snapshot().generations)
    assert not asked.done()
    text, _ = await asked
    assert text == " ".join(["one two three"] * 16)
    await cluster.settled(first, second)


async def test_work_waits_for_the_only_node_while_it_recovers_instead_of_failing_on(
    cluster: LocalCluster,
) -> None:
    await cluster.node(fail_first=3)
    breaker = BreakerSettings(min_calls=3, dwell_s=0.3)
    dispatcher = await cluster.dispatcher(SETTINGS.model_copy(update={"breaker": breaker}))
    for _ in range(3):
        with pytest.raises(BackendFailed):
            await cluster.ask(cluster.generation())
    assert dispatcher.placer.room(cluster.model) == (0, 0)
    answers = await asyncio.gather(*(cluster.ask(cluster.generation(f"n {n}")) for n in range(8)))
    assert [text for text, _ in answers] == [f"n {n}" for n in range(8)]
    assert dispatcher.placer.room(cluster.model) == (4, 4)
    await cluster.settled(dispatcher)


async def test_only_a_dispatcher_without_its_share_of_the_slots_starves_however_long_work_waits(
    cluster: LocalCluster,
) -> None:
    await cluster.node(slots=2, speed=5)
    settings = SETTINGS.model_copy(update={"starving_s": 0.05})
    rich = await cluster.dispatcher(settings)
    asked = [asyncio.ensure_future(cluster.ask(cluster.generation(tokens=100))) for _ in range(2)]
    await eventually(lambda: sum(rich.snapshot().running.values()) == 2)
    poor = await cluster.dispatcher(settings)
    await eventually(lambda: poor.snapshot().peers and rich.snapshot().peers)
    asked += [asyncio.ensure_future(cluster.ask(cluster.generation(tokens=100))) for _ in range(4)]
    await eventually(lambda: poor.snapshot().starving)
    await eventually(lambda: rich.snapshot().longest_wait_s > 0.1)
    assert not rich.snapshot().starving
    for each in asked:
        each.cancel()
    await asyncio.wait(asked)


async def test_a_model_that_waits_for_its_turn_is_explained(cluster: LocalCluster) -> None:
    a, b = models_of(cluster, 2)
    node = await small_node(cluster, (a, b), speed=50)
    dispatcher = await cluster.dispatcher(SETTINGS.model_copy(update={"group_hold_s": 60.0}), sees=0)
    await eventually(lambda: all(dispatcher.registry.serving(model) for model in (a, b)))
    running = asyncio.ensure_future(cluster.ask(of(cluster, a, tokens=60)))
    await eventually(lambda: node.describe().running == 1)
    waiting = asyncio.ensure_future(cluster.ask(of(cluster, b)))
    await eventually(lambda: dispatcher.snapshot().total_waiting == 1)
    (found,) = await explanations(cluster.bus, Needs(model=b), [])
    (candidate,) = found.candidates
    assert candidate.left_out == "its memory is kept for other models for now"
    assert (await running)[1].finish.model == a
    assert (await waiting)[1].finish.model == b
    await cluster.settled(dispatcher)


async def test_a_generation_that_waits_at_a_dispatcher_counts_as_waiting(cluster: LocalCluster) -> None:
    await cluster.node(slots=1, speed=20)
    dispatcher = await cluster.dispatcher()
    asked = [asyncio.create_task(cluster.ask(cluster.generation(tokens=400))) for _ in range(2)]
    await eventually(lambda: dispatcher.snapshot().total_waiting == 1)
    depth = await read_depth(cluster.bus)
    (found,) = [each for each in depth.parts if each.model == cluster.model]
    assert (found.waiting, found.in_progress) == (1, 1)
    assert found.oldest_at is not None
    assert found.oldest_at <= depth.at
    for task in asked:
        task.cancel()
    await asyncio.wait(asked)
