from __future__ import annotations

import asyncio

import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.cli.placement import explanations
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.system import ActorSystem
from orchestration.errors import BackendFailed, NoNode
from orchestration.messages import Generation
from orchestration.placement import BreakerSettings, Needs
from tests.fixtures.eventually import eventually
from tests.fixtures.stage import SETTINGS, Stage


async def labelled(stage: Stage, name: str, **labels: str) -> None:
    """One more node, with labels."""
    settings = NodeSettings(id=name, labels=labels, drain_timeout_s=1)
    backend = EchoBackend(EchoSettings(models=(stage.model,), slots=4))
    stage.nodes[name] = await stage.stack.enter_async_context(
        run_node(stage.bus, backend, settings, ActorSystem())
    )


def wanting(stage: Stage, **labels: str) -> Generation:
    return stage.generation().model_copy(update={"labels": labels})


async def test_labels_choose_the_nodes(stage: Stage) -> None:
    await labelled(stage, "eu-1", region="eu")
    await labelled(stage, "us-1", region="us")
    dispatcher = await stage.dispatcher()
    answers = await asyncio.gather(*(stage.ask(wanting(stage, region="us")) for _ in range(10)))
    assert {ended.finish.node for _, ended in answers} == {"us-1"}
    await stage.settled(dispatcher)


async def test_labels_that_no_live_node_has_are_told_at_once(stage: Stage) -> None:
    await labelled(stage, "eu-2", region="eu")
    dispatcher = await stage.dispatcher()
    with pytest.raises(NoNode, match="with region=asia"):
        await stage.ask(wanting(stage, region="asia"))
    await stage.settled(dispatcher)


async def test_a_node_of_tenants_serves_them_alone(stage: Stage) -> None:
    await labelled(stage, "acmes", tenants="acme")
    await stage.dispatcher()
    _, ended = await stage.ask(wanting(stage, tenant="acme"))
    assert ended.finish.node == "acmes"
    with pytest.raises(NoNode):
        await stage.ask(stage.generation())


async def test_work_waits_for_the_only_node_while_it_recovers_instead_of_failing_on(stage: Stage) -> None:
    await stage.node(fail_first=3)
    breaker = BreakerSettings(min_calls=3, dwell_s=0.3)
    dispatcher = await stage.dispatcher(SETTINGS.model_copy(update={"breaker": breaker}))
    for _ in range(3):
        with pytest.raises(BackendFailed):
            await stage.ask(stage.generation())
    assert dispatcher.placer.room(stage.model) == (0, 0)
    answers = await asyncio.gather(*(stage.ask(stage.generation(f"n {n}")) for n in range(8)))
    assert [text for text, _ in answers] == [f"n {n}" for n in range(8)]
    assert dispatcher.placer.room(stage.model) == (4, 4)
    await stage.settled(dispatcher)


async def test_the_node_that_proved_faster_is_preferred(stage: Stage) -> None:
    await stage.node("slow", speed=20, slots=2)
    await stage.node("fast", speed=400, slots=2)
    dispatcher = await stage.dispatcher()
    for _ in range(3):  # both are tried, for they look alike
        await asyncio.gather(*(stage.ask(stage.generation(tokens=6)) for _ in range(4)))
    await eventually(
        lambda: all(stage.model in node.rates for node in dispatcher.registry.serving(stage.model))
    )
    answers = [await stage.ask(stage.generation(tokens=6)) for _ in range(10)]
    assert [ended.finish.node for _, ended in answers] == ["fast"] * 10
    await stage.settled(dispatcher)


async def test_every_dispatcher_explains_itself(stage: Stage) -> None:
    await labelled(stage, "a-1", region="eu")
    await labelled(stage, "b-1", region="us")
    await stage.dispatcher()
    needs = Needs(model=stage.model, labels=frozenset({("region", "eu")}))
    (found,) = await explanations(stage.bus, needs, [])
    assert found.dispatcher
    assert [(each.node, each.left_out) for each in found.candidates] == [
        ("a-1", ""),
        ("b-1", "label region=eu is wanted, it has us"),
    ]


async def test_without_a_dispatcher_the_registry_explains(stage: Stage) -> None:
    node = await stage.node("alone")
    (found,) = await explanations(stage.bus, Needs(model=stage.model), [node.describe()])
    assert (found.dispatcher, [each.node for each in found.candidates]) == ("", ["alone"])


async def test_dispatchers_count_each_other(stage: Stage) -> None:
    await stage.node()
    dispatchers = [await stage.dispatcher() for _ in range(3)]
    await eventually(lambda: [each.snapshot().peers for each in dispatchers] == [2, 2, 2])


async def test_only_a_dispatcher_without_its_share_of_the_slots_starves_however_long_work_waits(
    stage: Stage,
) -> None:
    await stage.node(slots=2, speed=5)
    settings = SETTINGS.model_copy(update={"starving_s": 0.05})
    rich = await stage.dispatcher(settings)
    asked = [asyncio.ensure_future(stage.ask(stage.generation(tokens=100))) for _ in range(2)]
    await eventually(lambda: sum(rich.snapshot().running.values()) == 2)
    poor = await stage.dispatcher(settings)
    await eventually(lambda: poor.snapshot().peers and rich.snapshot().peers)
    asked += [asyncio.ensure_future(stage.ask(stage.generation(tokens=100))) for _ in range(4)]
    await eventually(lambda: poor.snapshot().starving)
    await eventually(lambda: rich.snapshot().longest_wait_s > 0.1)
    assert not rich.snapshot().starving
    for each in asked:
        each.cancel()
    await asyncio.wait(asked)
