"""Settings that are changed while a dispatcher and agents run: fallbacks, breakers, jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from actors.config.hot_settings import HotSettings
from actors.config.settings_follower import followed
from actors.config.settings_writer import ChangeNote, SettingsWriter
from actors.launch.roles import run_agents_role, run_dispatcher_role
from actors.runtime.actor_host import ActorHost
from actors.runtime.system import ActorSystem
from actors.settings import Settings
from actors.telemetry.identity import ProcessIdentity
from orchestration.patterns import BUILT_IN
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats

NOTE = ChangeNote(by="alice")
SETTINGS = Settings.model_validate({"dispatcher": {"warming": {"enabled": False}}})


@asynccontextmanager
async def changing(
    nats: RunningNats,
) -> AsyncIterator[tuple[LocalCluster, HotSettings[Settings], SettingsWriter[Settings], ActorSystem]]:
    """A process with a dispatcher and agents, a node, and a caller elsewhere."""
    async with local_cluster(nats.url) as cluster, AsyncExitStack() as stack:
        await cluster.node()
        hot = HotSettings(SETTINGS)
        system = ActorSystem()
        bus = cluster.node_bus
        await stack.enter_async_context(followed(bus, hot, ProcessIdentity.of_this_process("up")))
        await stack.enter_async_context(run_dispatcher_role(bus, hot, system))
        await stack.enter_async_context(run_agents_role(bus, hot, system, BUILT_IN, None))
        yield cluster, hot, SettingsWriter(cluster.bus, hot), system


def host_of(system: ActorSystem, name: str) -> ActorHost:
    return system.hosts[name]


async def change(
    writer: SettingsWriter[Settings], hot: HotSettings[Settings], values: dict[str, Any]
) -> None:
    made = await writer.set(values, NOTE)
    assert made is not None
    await eventually(lambda: hot.revision == made.id)


async def test_a_fallback_that_is_set_answers_for_a_model_without_a_node(own_nats: RunningNats) -> None:
    async with changing(own_nats) as (cluster, hot, writer, _):
        await change(writer, hot, {'dispatcher.fallbacks."big/1.5"': [cluster.model]})
        generation = cluster.generation().model_copy(update={"model": "big/1.5"})
        text, ended = await cluster.ask(generation)
        assert text
        assert ended.finish.model == cluster.model


async def test_a_dispatcher_that_crashed_comes_back_with_what_was_changed(own_nats: RunningNats) -> None:
    async with changing(own_nats) as (_, hot, writer, system):
        await change(writer, hot, {"dispatcher.breaker.min_calls": 17, "dispatcher.attempts": 7})
        host = host_of(system, "dispatcher")
        before: Any = host.actor
        assert before.executor.placer.chooser.index.settings.min_calls == 17
        assert host.actor is not None
        host.crashed(host.actor, RuntimeError("a test"))
        await eventually(lambda: host.actor is not before and host.state == "running")
        after: Any = host.actor
        assert after.executor.placer.chooser.settings.min_calls == 17
        await change(writer, hot, {"dispatcher.attempts": 3})
        assert after.executor.failover.settings.attempts == 3


async def test_webhooks_take_their_number_of_attempts_from_the_settings(own_nats: RunningNats) -> None:
    async with changing(own_nats) as (_, hot, writer, system):
        await change(writer, hot, {"jobs.webhook.max_attempts": 3})
        webhooks: Any = host_of(system, "webhooks").actor
        assert webhooks.settings.max_attempts == 3
