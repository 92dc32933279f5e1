from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.supervision import RestartPolicy, Restarts
from actors.runtime.system import ActorSystem
from orchestration.errors import Defect, Unavailable
from tests.fixtures.eventually import eventually
from tests.runtime.greeter import Crash, Gate, Greet, Greeted, Greeter, Wait


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


async def test_a_crash_is_told_to_the_caller_and_a_fresh_instance_takes_over() -> None:
    made: list[Nervous] = []

    def make() -> Nervous:
        made.append(Nervous())
        return made[-1]

    ref = await ActorSystem().spawn(Nervous, make)
    with pytest.raises(Defect, match="RuntimeError: told to crash"):
        await ref.ask(Crash())
    assert await ref.ask(Greet(name="b")) == Greeted(text="hello b")
    assert [actor.log for actor in made] == [["started", "stopped"], ["started", "b"]]


async def test_messages_wait_while_the_actor_restarts() -> None:
    ref = await ActorSystem().spawn(Nervous, Nervous)
    with pytest.raises(Defect):
        await ref.ask(Crash())
    assert ref.cell.state == "restarting"
    asked = [asyncio.ensure_future(ref.ask(Greet(name=str(n)))) for n in range(5)]
    await eventually(lambda: ref.cell.waiting == 5)
    assert [answer.text for answer in await asyncio.gather(*asked)] == [f"hello {n}" for n in range(5)]


async def test_other_handlers_of_a_crashed_instance_finish() -> None:
    gate = Gate()
    ref = await ActorSystem().spawn(Wide, lambda: Wide(gate))
    waiting = asyncio.ensure_future(ref.ask(Wait()))
    await eventually(lambda: gate.now == 1)
    with pytest.raises(Defect):
        await ref.ask(Crash())
    gate.opened.set()
    await waiting


async def test_too_many_crashes_end_in_giving_up_loudly(caplog: pytest.LogCaptureFixture) -> None:
    system = ActorSystem()
    ref = await system.spawn(Nervous, Nervous)
    for _ in range(3):
        with pytest.raises(Defect):
            await ref.ask(Crash())
    await asyncio.wait_for(system.given_up.wait(), 5)
    with pytest.raises(Unavailable, match="gave up"):
        ref.tell(Greet(name="anyone?"))
    assert any(record.levelname == "CRITICAL" and "gave up" in record.message for record in caplog.records)


async def test_messages_that_waited_are_answered_when_it_gives_up() -> None:
    system = ActorSystem()

    class Hopeless(Greeter):
        restart = RestartPolicy(max_restarts=0)

    ref = await system.spawn(Hopeless, Hopeless)
    crash = asyncio.ensure_future(ref.ask(Crash()))
    waiting = asyncio.ensure_future(ref.ask(Greet(name="b")))
    with pytest.raises(Defect):
        await crash
    with pytest.raises(Unavailable, match="gave up"):
        await waiting
    assert await system.drain(1)


async def test_the_first_start_that_fails_is_raised_to_whoever_spawns() -> None:
    system = ActorSystem()
    actor = Stubborn([OSError("no disk")])
    with pytest.raises(OSError, match="no disk"):
        await system.spawn(Stubborn, lambda: actor)
    assert actor.log == ["started", "stopped"]
    assert not system.cells


async def test_a_restart_that_fails_is_tried_again() -> None:
    failures: list[Exception | None] = [None, OSError("not yet"), OSError("not yet")]
    ref = await ActorSystem().spawn(Stubborn, lambda: Stubborn(failures))
    with pytest.raises(Defect):
        await ref.ask(Crash())
    assert await ref.ask(Greet(name="at last")) == Greeted(text="hello at last")
    assert not failures


async def test_a_message_told_to_oneself_in_started_waits_until_it_has_started() -> None:
    class Eager(Greeter):
        async def started(self) -> None:
            self.me.tell(Greet(name="me"))
            await asyncio.sleep(0)
            await super().started()

    actor = Eager()
    await ActorSystem().spawn(Eager, lambda: actor)
    await eventually(lambda: len(actor.log) == 2)
    assert actor.log == ["started", "me"]


@given(
    st.lists(st.floats(0, 200), max_size=30).map(sorted),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 6),
)
def test_restarts_back_off_within_bounds_and_give_up_in_the_window(
    times: list[float], chance: float, most: int
) -> None:
    policy = RestartPolicy(
        backoff_s=0.5, factor=2, max_backoff_s=8, jitter=0.2, max_restarts=most, window_s=60
    )
    restarts = Restarts(policy)
    restarted: list[float] = []
    for now in times:
        within = [time for time in restarted if now - time <= policy.window_s]
        delay = restarts.after_crash(now, chance)
        assert (delay is None) == (len(within) >= most)
        if delay is not None:
            plain = min(0.5 * 2 ** len(within), 8)
            assert plain * 0.8 <= delay <= plain * 1.2
            restarted.append(now)
