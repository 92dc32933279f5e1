"""Settings of agents that are changed while runs are in progress: they hold for runs that begin later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from actors.agents.settings import AgentsSettings
from orchestration.patterns import StepLimits
from orchestration.roles import RoleOverride
from tests.actors.agents.clusters import stream_of, upstream_cluster
from tests.actors.agents.test_runs import make_run, perform
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.upstream import Request

SETTINGS = AgentsSettings(drain_timeout_s=5, concurrency=1)


class SlowUpstream:
    """Answers nothing until `open` is set; `asked` are the messages of each request."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked: list[str] = []

    async def script(self, request: Request) -> AsyncIterator[bytes]:
        self.asked.append(str(request.body["messages"]))
        await self.open.wait()
        async for part in stream_of("Yes."):
            yield part


def changed(**values: object) -> AgentsSettings:
    return AgentsSettings.model_validate(SETTINGS.model_dump(exclude_unset=True) | values)


async def test_runs_begin_at_once_when_more_may_and_wait_when_fewer_may(nats: RunningNats) -> None:
    upstream = SlowUpstream()
    async with upstream_cluster(nats.url, upstream.script, ["birch"], SETTINGS) as running:
        work = [
            asyncio.create_task(perform(running.streams, make_run(running.streams, "single", "Is it?")))
            for _ in range(4)
        ]
        await eventually(lambda: len(upstream.asked) == 1)
        running.team.update_settings(changed(concurrency=3))
        await eventually(lambda: len(upstream.asked) == 3)
        running.team.update_settings(changed(concurrency=1))
        work.append(
            asyncio.create_task(perform(running.streams, make_run(running.streams, "single", "Is it?")))
        )
        upstream.open.set()
        await asyncio.gather(*work)
        assert len(upstream.asked) == 5


async def test_a_role_that_is_changed_speaks_so_in_later_runs_only(nats: RunningNats) -> None:
    upstream = SlowUpstream()
    async with upstream_cluster(nats.url, upstream.script, ["birch"], SETTINGS) as running:
        roles = running.team.services.roles
        first = asyncio.create_task(
            perform(running.streams, make_run(running.streams, "debate", "Is it?", settings={"rounds": 1}))
        )
        await eventually(lambda: upstream.asked)
        prompt = "You speak like a pirate."
        running.team.update_settings(
            changed(
                roles={name: RoleOverride(prompt=prompt) for name in roles}, limits=StepLimits(plan_tokens=99)
            )
        )
        upstream.open.set()
        await first
        assert not [asked for asked in upstream.asked if prompt in asked]
        count = len(upstream.asked)
        await perform(running.streams, make_run(running.streams, "debate", "Is it?", settings={"rounds": 1}))
        assert [asked for asked in upstream.asked[count:] if prompt in asked]
        assert running.team.services.settings.limits.plan_tokens == 99
