from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import pytest

from actors.runtime.actor import Actor
from actors.runtime.envelope import Envelope
from actors.runtime.handlers import handlers
from actors.runtime.system import ActorSystem
from orchestration.errors import Cancelled, DeadlineExceeded, MailboxFull
from tests.actors.runtime.greeter import (
    Count,
    Gate,
    Greet,
    Greeted,
    Greeter,
    SmallGreeter,
    Tell,
    Wait,
    WideGreeter,
)
from tests.fixtures.ask import STREAM_BUFFER, ask, stream
from tests.fixtures.eventually import eventually


async def test_a_handler_is_found_by_the_type_of_its_message() -> None:
    ref = await ActorSystem().spawn(Greeter, Greeter)
    assert await ask(ref, Greet(name="you")) == Greeted(text="hello you")


async def test_a_handler_of_a_union_takes_the_messages_of_each_of_its_classes() -> None:
    class Either(Actor):
        async def on_either(self, message: Annotated[Greet | Greeted, "either"]) -> str:
            return type(message).__name__

    ref = await ActorSystem().spawn(Either, Either)
    assert await ask(ref, Greet(name="you")) == "Greet"
    assert await ask(ref, Greeted(text="hello")) == "Greeted"


async def test_a_message_without_a_handler_is_the_senders_mistake() -> None:
    ref = await ActorSystem().spawn(Greeter, Greeter)
    with pytest.raises(TypeError, match="no handler for str"):
        ref.tell("hello")
    assert await ask(ref, Greet(name="still here"))


def test_a_handler_without_an_annotation_is_refused() -> None:
    class Untyped(Actor):
        async def on_any(self, message) -> None:  # type: ignore[no-untyped-def]
            pass

    with pytest.raises(TypeError, match="on_any must take one message"):
        handlers(Untyped)


def test_a_handler_that_is_not_asynchronous_is_refused() -> None:
    class Plain(Actor):
        def on_greet(self, message: Greet) -> None:
            pass

    with pytest.raises(TypeError, match="on_greet must be a coroutine"):
        handlers(Plain)


def test_two_handlers_of_one_message_are_refused() -> None:
    class Twice(Actor):
        async def on_one(self, message: Greet) -> None:
            pass

        async def on_other(self, message: Greet) -> None:
            pass

    with pytest.raises(TypeError, match="handles Greet twice"):
        handlers(Twice)


async def test_one_message_at_a_time_unless_the_actor_says_more() -> None:
    gate = Gate()
    ref = await ActorSystem().spawn(Greeter, lambda: Greeter(gate))
    asks = [asyncio.ensure_future(ask(ref, Wait())) for _ in range(3)]
    await eventually(lambda: gate.entered == 1)
    assert (ref.host.running, ref.host.waiting) == (1, 2)
    gate.opened.set()
    await asyncio.gather(*asks)
    assert gate.most == 1


async def test_as_many_messages_at_once_as_the_actor_allows() -> None:
    gate = Gate()
    ref = await ActorSystem().spawn(WideGreeter, lambda: WideGreeter(gate))
    asks = [asyncio.ensure_future(ask(ref, Wait())) for _ in range(70)]
    await eventually(lambda: gate.entered == 64)
    assert ref.host.waiting == 6
    gate.opened.set()
    await asyncio.gather(*asks)
    assert gate.most == 64


async def test_a_full_mailbox_refuses_and_says_its_size() -> None:
    gate = Gate()
    ref = await ActorSystem().spawn(SmallGreeter, lambda: SmallGreeter(gate))
    asks = [asyncio.ensure_future(ask(ref, Wait())) for _ in range(3)]
    await eventually(lambda: ref.host.waiting == 2)
    with pytest.raises(MailboxFull, match="2 messages waiting, its mailbox_size") as refused:
        ref.tell(Greet(name="late"))
    assert refused.value.retry_after_s == 1
    gate.opened.set()
    await asyncio.gather(*asks)
    assert await ask(ref, Greet(name="again"))


async def test_a_cancelled_ask_cancels_its_handler() -> None:
    gate = Gate()
    ref = await ActorSystem().spawn(Greeter, lambda: Greeter(gate))
    asking = asyncio.ensure_future(ask(ref, Wait()))
    await eventually(lambda: gate.now == 1)
    asking.cancel()
    await eventually(lambda: gate.cancelled == 1 and ref.host.running == 0)
    assert await ask(ref, Greet(name="next"))


async def test_an_ask_cancelled_while_it_waits_leaves_the_mailbox_at_once() -> None:
    gate = Gate()
    ref = await ActorSystem().spawn(SmallGreeter, lambda: SmallGreeter(gate))
    first = asyncio.ensure_future(ask(ref, Wait()))
    others = [asyncio.ensure_future(ask(ref, Wait())) for _ in range(2)]
    await eventually(lambda: ref.host.waiting == 2)
    others[0].cancel()
    await eventually(lambda: ref.host.waiting == 1)
    ref.tell(Greet(name="takes the place"))
    gate.opened.set()
    await asyncio.gather(first, others[1])
    assert gate.entered == 2


async def test_a_task_cancelled_before_its_first_step_still_answers() -> None:
    ref = await ActorSystem().spawn(Greeter, Greeter)
    sink: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    class Sink:
        async def item(self, value: Any) -> None: ...
        async def done(self, value: Any) -> None:
            sink.set_result(value)

        async def failed(self, error: Exception) -> None:
            sink.set_result(error)

    ref.deliver(Greet(name="x"), Sink()).cancel()
    assert isinstance(await sink, Cancelled)
    await eventually(lambda: ref.host.running == 0)


async def test_a_deadline_that_passed_before_the_handler_began_is_reported() -> None:
    ref = await ActorSystem().spawn(Greeter, Greeter)
    with pytest.raises(DeadlineExceeded, match="passed"):
        await ask(ref, Greet(name="late"), Envelope.within(-1))
    assert ref.host.state == "running"


async def test_the_deadline_ends_the_wait_in_the_mailbox() -> None:
    gate = Gate()
    ref = await ActorSystem().spawn(Greeter, lambda: Greeter(gate))
    busy = asyncio.ensure_future(ask(ref, Wait()))
    await eventually(lambda: gate.now == 1)
    with pytest.raises(DeadlineExceeded):
        await ask(ref, Greet(name="too late"), Envelope.within(0.05))
    assert ref.host.waiting == 0
    gate.opened.set()
    await busy


async def test_a_handler_that_runs_past_its_deadline_is_cancelled_and_is_no_crash() -> None:
    gate = Gate()
    ref = await ActorSystem().spawn(Greeter, lambda: Greeter(gate))
    with pytest.raises(DeadlineExceeded, match="ran out of time"):
        await ask(ref, Wait(), Envelope.within(0.05))
    assert gate.cancelled == 1
    assert ref.host.state == "running"


async def test_a_message_sent_by_a_handler_carries_the_handlers_envelope() -> None:
    class Passer(Actor):
        async def on_wait(self, message: Wait) -> Any:
            return await ask(other, Wait())

    gate = Gate()
    gate.opened.set()
    system = ActorSystem()
    other = await system.spawn(Greeter, lambda: Greeter(gate))
    passer = await system.spawn(Passer, Passer)
    envelope = Envelope.within(5, trace="00-aa-bb-00", caller="me")
    assert await ask(passer, Wait(), envelope) == envelope


async def test_a_stream_gives_every_value_in_order() -> None:
    ref = await ActorSystem().spawn(Greeter, Greeter)
    texts = [value.text async for value in stream(ref, Count(to=200))]
    assert texts == [str(number) for number in range(200)]


async def test_a_stream_that_is_closed_early_ends_its_handler() -> None:
    greeter = Greeter()
    ref = await ActorSystem().spawn(Greeter, lambda: greeter)
    streamed = stream(ref, Count(to=1_000_000))
    async with aclosing(streamed) as values:
        async for _ in values:
            break
    await eventually(lambda: ref.host.running == 0)
    assert greeter.log == ["started", "counted"]


async def test_a_slow_reader_slows_the_handler_down() -> None:
    said = 0

    class Talker(Actor):
        async def on_count(self, message: Count) -> AsyncIterator[int]:
            nonlocal said
            for number in range(message.to):
                said += 1
                yield number

    ref = await ActorSystem().spawn(Talker, Talker)
    streamed = stream(ref, Count(to=1000))
    assert await anext(streamed) == 0
    await eventually(lambda: said > STREAM_BUFFER)
    for _ in range(50):
        await asyncio.sleep(0)
    assert said <= STREAM_BUFFER + 3
    assert sum([1 async for _ in streamed]) == 999


async def test_an_actor_may_tell_itself_while_it_drains() -> None:
    gate = Gate()
    greeter = Greeter(gate)
    ref = await ActorSystem().spawn(Greeter, lambda: greeter)
    ref.tell(Tell(times=3))
    await eventually(lambda: gate.now == 1)
    draining = asyncio.ensure_future(ref.host.drain(5))
    await eventually(lambda: ref.host.state == "draining")
    gate.opened.set()
    assert await draining
    assert greeter.log == ["started", "told", "stopped"]


async def test_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    system = ActorSystem()
    ref = await system.spawn(WideGreeter, WideGreeter)
    await asyncio.gather(*(ask(ref, Greet(name=str(n))) for n in range(60)))
    async for _ in stream(ref, Count(to=10)):
        pass
    assert await system.drain(1)
    await eventually(lambda: asyncio.all_tasks() == before)
