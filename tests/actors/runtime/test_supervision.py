from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from actors.runtime.actor_host import ActorRef
from actors.runtime.envelope import Envelope
from actors.runtime.system import ActorSystem
from orchestration.errors import Cancelled, InternalError, Unavailable
from orchestration.restarts import RestartPolicy
from tests.actors.runtime.greeter import Die, Gate, Greet, Greeted, Greeter, Raise, RaiseLate, Wait
from tests.fixtures.ask import FutureSink, ask, stream
from tests.fixtures.eventually import eventually


class Nervous(Greeter):
    restart = RestartPolicy(backoff_s=0.02, max_restarts=2)


class Wide(Nervous):
    concurrency = 4


class Stubborn(Greeter):
    """Fails to start as often as it is told."""

    restart = RestartPolicy(backoff_s=0.01, max_restarts=3)

    def __init__(self, failures: list[Exception | None]) -> None:
        super().__init__()
        self.failures = failures

    async def started(self) -> None:
        await super().started()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Panic(BaseException):
    """Such as libraries written in Rust raise."""


FAILURES = {
    "KeyError: ('a', 1)": KeyError(("a", 1)),
    "Unspeakable": Unspeakable(),
    "RecursionError: deep": RecursionError("deep"),
    "SystemExit: 3": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "Panic: at the disco": Panic("at the disco"),
    "CancelledError": asyncio.CancelledError(),
    "SystemExit: 1": BaseExceptionGroup(
        "outer", [SystemExit(1), ExceptionGroup("in", [ValueError("inner")])]
    ),
    "ValueError: half ?": ValueError("half \ud83d"),
    "ValueError: xxxx": ValueError("x" * 1_000_000),
    "TimeoutError": TimeoutError(),
}


async def asked(ref: ActorRef, message: Raise | RaiseLate) -> None:
    if isinstance(message, Raise):
        await ask(ref, message)
    else:
        assert [value async for value in stream(ref, message)] == ["something"]


@pytest.mark.parametrize("said", FAILURES)
@pytest.mark.parametrize("kind", [Raise, RaiseLate])
async def test_what_a_handler_raises_is_the_error_of_its_message_alone(
    kind: type[Raise | RaiseLate], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Nervous] = []

    def make() -> Nervous:
        made.append(Nervous())
        return made[-1]

    system = ActorSystem()
    ref = await system.spawn(Nervous, make)
    before = REGISTRY.get_sample_value("orchestra_internal_errors_total", {"where": "Nervous"}) or 0
    for _ in range(10):
        with pytest.raises(InternalError) as caught:
            await asked(ref, kind(FAILURES[said]))
        assert said in caught.value.message
        assert len(caught.value.message) < 10_000
        caught.value.body().model_dump_json()
    assert await ask(ref, Greet(name="b")) == Greeted(text="hello b")
    assert (len(made), system.actor_failed.is_set()) == (1, False)
    assert REGISTRY.get_sample_value("orchestra_internal_errors_total", {"where": "Nervous"}) == before + 10
    assert sum(record.exc_info is not None for record in caplog.records) == 10


async def test_a_group_of_errors_of_ours_is_the_first_of_them(caplog: pytest.LogCaptureFixture) -> None:
    ref = await ActorSystem().spawn(Nervous, Nervous)
    with pytest.raises(Unavailable, match="one"):
        await ask(ref, Raise(ExceptionGroup("tasks", [Unavailable("one"), Unavailable("two")])))
    assert not caplog.records


async def test_a_handler_that_fails_while_it_is_cancelled_counts_as_cancelled() -> None:
    class Clumsy(Greeter):
        async def on_wait(self, message: Wait) -> Envelope:
            try:
                return await super().on_wait(message)
            except asyncio.CancelledError:
                raise KeyError("in the clean-up") from None

    gate, told = Gate(), asyncio.get_running_loop().create_future()
    ref = await ActorSystem().spawn(Clumsy, lambda: Clumsy(gate))
    work = ref.deliver(Wait(), FutureSink(told))
    await eventually(lambda: gate.now == 1)
    work.cancel()
    with pytest.raises(Cancelled):
        await told


async def test_a_crash_of_an_actors_own_loop_has_a_fresh_instance_take_over() -> None:
    made: list[Nervous] = []

    def make() -> Nervous:
        made.append(Nervous())
        return made[-1]

    ref = await ActorSystem().spawn(Nervous, make)
    await ask(ref, Die())
    await eventually(lambda: ref.host.state == "restarting")
    assert await ask(ref, Greet(name="b")) == Greeted(text="hello b")
    assert [actor.log for actor in made] == [["started", "stopped"], ["started", "b"]]


async def test_messages_wait_while_the_actor_restarts() -> None:
    ref = await ActorSystem().spawn(Nervous, Nervous)
    await ask(ref, Die())
    await eventually(lambda: ref.host.state == "restarting")
    asked = [asyncio.ensure_future(ask(ref, Greet(name=str(n)))) for n in range(5)]
    await eventually(lambda: ref.host.waiting == 5)
    assert [answer.text for answer in await asyncio.gather(*asked)] == [f"hello {n}" for n in range(5)]


async def test_other_handlers_of_a_crashed_instance_finish() -> None:
    gate = Gate()
    ref = await ActorSystem().spawn(Wide, lambda: Wide(gate))
    waiting = asyncio.ensure_future(ask(ref, Wait()))
    await eventually(lambda: gate.now == 1)
    await ask(ref, Die())
    await eventually(lambda: ref.host.state == "restarting")
    gate.opened.set()
    await waiting


async def test_an_actor_that_crashes_too_often_stays_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    system = ActorSystem()
    ref = await system.spawn(Nervous, Nervous)
    for _ in range(3):
        await ask(ref, Die())
        await eventually(lambda: ref.host.state != "running")
    await asyncio.wait_for(system.actor_failed.wait(), 30)
    with pytest.raises(Unavailable, match="failed"):
        ref.tell(Greet(name="anyone?"))
    assert any(record.levelname == "CRITICAL" and "failed" in record.message for record in caplog.records)


async def test_messages_that_waited_are_answered_when_the_actor_fails() -> None:
    system = ActorSystem()

    class Hopeless(Greeter):
        restart = RestartPolicy(max_restarts=0)

    gate = Gate()
    ref = await system.spawn(Hopeless, lambda: Hopeless(gate))
    busy = asyncio.ensure_future(ask(ref, Wait()))
    waiting = asyncio.ensure_future(ask(ref, Greet(name="b")))
    await eventually(lambda: ref.host.waiting == 1)
    assert ref.host.actor is not None
    ref.host.crashed(ref.host.actor, RuntimeError("told to die"))
    for each in (busy, waiting):
        with pytest.raises(Unavailable, match="failed"):
            await each
    assert await system.drain(1)


async def test_a_failure_of_the_first_start_is_raised_by_spawn() -> None:
    system = ActorSystem()
    actor = Stubborn([OSError("no disk")])
    with pytest.raises(OSError, match="no disk"):
        await system.spawn(Stubborn, lambda: actor)
    assert actor.log == ["started", "stopped"]
    assert not system.hosts


async def test_a_restart_that_fails_is_tried_again() -> None:
    failures: list[Exception | None] = [None, OSError("not yet"), OSError("not yet")]
    ref = await ActorSystem().spawn(Stubborn, lambda: Stubborn(failures))
    await ask(ref, Die())
    await eventually(lambda: ref.host.state == "restarting")
    assert await ask(ref, Greet(name="at last")) == Greeted(text="hello at last")
    assert not failures


async def test_a_message_to_itself_in_started_waits_until_the_actor_has_started() -> None:
    class Eager(Greeter):
        async def started(self) -> None:
            self.me.tell(Greet(name="me"))
            await asyncio.sleep(0)
            await super().started()

    actor = Eager()
    await ActorSystem().spawn(Eager, lambda: actor)
    await eventually(lambda: len(actor.log) == 2)
    assert actor.log == ["started", "me"]
