from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.runtime.actor import Actor
from actors.runtime.system import ActorSystem
from orchestration.errors import ShuttingDown
from orchestration.restarts import RestartPolicy
from tests.actors.runtime.greeter import Count, Die, Gate, Greet, Greeter, Wait
from tests.fixtures.ask import ask, stream
from tests.fixtures.eventually import eventually


async def test_a_drain_admits_nothing_and_finishes_what_was_admitted() -> None:
    gate = Gate()
    system = ActorSystem()
    ref = await system.spawn(Greeter, lambda: Greeter(gate))
    asked = [asyncio.ensure_future(ask(ref, Wait())) for _ in range(3)]
    await eventually(lambda: gate.now == 1)
    draining = asyncio.ensure_future(system.drain(5))
    await eventually(lambda: ref.host.state == "draining")
    with pytest.raises(ShuttingDown, match="draining"):
        ref.tell(Greet(name="late"))
    gate.opened.set()
    assert await draining
    await asyncio.gather(*asked)
    assert gate.entered == 3


async def test_messages_unfinished_within_the_limit_are_cancelled_with_an_error() -> None:
    gate = Gate()
    system = ActorSystem()
    ref = await system.spawn(Greeter, lambda: Greeter(gate))
    asked = [asyncio.ensure_future(ask(ref, Wait())) for _ in range(3)]
    await eventually(lambda: gate.now == 1)
    assert not await system.drain(0.05)
    for each in asked:
        with pytest.raises(ShuttingDown, match="stopped before it finished"):
            await each
    assert (gate.entered, gate.cancelled) == (1, 1)


async def test_an_idle_system_drains_cleanly_without_any_time() -> None:
    system = ActorSystem()
    actors: list[Greeter] = []

    def make() -> Greeter:
        actors.append(Greeter())
        return actors[-1]

    for number in range(3):
        await system.spawn(Greeter, make, name=f"greeter {number}")
    assert await system.drain(0)
    assert all(actor.log == ["started", "stopped"] for actor in actors)


async def test_a_drain_during_a_restart_answers_what_waited() -> None:
    class Slow(Greeter):
        restart = RestartPolicy(backoff_s=60)

    system = ActorSystem()
    actors: list[Slow] = []

    def make() -> Slow:
        actors.append(Slow())
        return actors[-1]

    ref = await system.spawn(Slow, make)
    await ask(ref, Die())
    await eventually(lambda: ref.host.state == "restarting")
    asked = asyncio.ensure_future(ask(ref, Greet(name="x")))
    await eventually(lambda: ref.host.waiting == 1)
    assert not await system.drain(5)
    with pytest.raises(ShuttingDown, match="after a crash"):
        await asked
    assert [actor.log for actor in actors] == [["started", "stopped"]]


async def test_a_stream_without_a_reader_does_not_block_a_drain() -> None:
    class Talker(Actor):
        async def on_count(self, message: Count) -> AsyncIterator[int]:
            for number in range(message.to):
                yield number

    system = ActorSystem()
    ref = await system.spawn(Talker, Talker)
    streamed = stream(ref, Count(to=10_000))
    assert await anext(streamed) == 0
    assert not await system.drain(0.05)
    with pytest.raises(ShuttingDown):
        async for _ in streamed:
            pass
    assert ref.host.running == 0


async def test_one_actor_that_fails_to_stop_keeps_no_other_from_stopping() -> None:
    class Sticky(Greeter):
        async def stopped(self) -> None:
            raise RuntimeError("stuck")

    system = ActorSystem()
    first = Greeter()
    await system.spawn(Greeter, lambda: first)
    await system.spawn(Sticky, Sticky)
    assert await system.drain(1)
    assert first.log == ["started", "stopped"]


async def test_a_name_is_used_once() -> None:
    system = ActorSystem()
    await system.spawn(Greeter, Greeter)
    with pytest.raises(ValueError, match="runs already"):
        await system.spawn(Greeter, Greeter)
