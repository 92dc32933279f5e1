from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from actors.bus.bus import Bus
from actors.bus.declarations import shipped_declaration
from actors.bus.key_value import Bucket, Conflict
from actors.bus.provision import apply
from actors.bus.subjects import NodeAddress
from actors.cluster.node_registration import NodeRegistration
from actors.cluster.registry import BUCKET, Registry
from orchestration.messages import Hardware, ModelCard, NodeInfo
from tests.fixtures.eventually import eventually


def info(name: str, *models: str, draining: bool = False, running: int = 0) -> NodeInfo:
    return NodeInfo(
        id=name,
        backend="echo",
        models=tuple(ModelCard(name=model) for model in models),
        hardware=Hardware(cores=1, memory_bytes=1, provider="none"),
        slots=4,
        running=running,
        draining=draining,
    )


@pytest.fixture
async def registry(bus: Bus) -> AsyncIterator[Registry]:
    await apply(bus, shipped_declaration())
    registry = Registry(bus)
    await registry.start()
    yield registry
    await registry.stop()


@pytest.fixture
def name() -> str:
    return f"r-{uuid4().hex[:8]}"


async def put(bus: Bus, node: NodeInfo) -> None:
    await Bucket(bus, BUCKET).put(node.id, node.model_dump_json().encode())


async def test_nodes_are_found_by_what_they_serve(bus: Bus, registry: Registry, name: str) -> None:
    model, other = f"m-{name}", f"o-{name}"
    await put(bus, info(name, model))
    await eventually(lambda: name in registry.nodes)
    assert [node.id for node in registry.serving(model)] == [name]
    await put(bus, info(name, other, running=2))
    await eventually(lambda: other in registry.cards)
    assert model not in registry.cards
    assert registry.serving(model) == []
    assert registry.serving(other)[0].running == 2
    assert model in registry.known


async def test_a_node_that_was_there_before_is_seen_at_the_start(bus: Bus, name: str) -> None:
    await apply(bus, shipped_declaration())
    await put(bus, info(name, "m"))
    registry = Registry(bus)
    await registry.start()
    assert name in registry.nodes
    await registry.stop()


async def test_models_that_were_served_before_are_known(bus: Bus, name: str) -> None:
    await apply(bus, shipped_declaration())
    model = f"vendor/{name}.v2"
    node = NodeRegistration(bus, name, lambda: info(name, model), lambda: None)
    await node.join()
    await node.leave()
    registry = Registry(bus)
    await registry.start()
    assert registry.known[model] is None
    assert registry.served_within(60, model)
    assert registry.served_within(60)
    assert not registry.served_within(0, model)
    assert not registry.served_within(60, f"never-{name}")
    await registry.stop()


async def test_a_fallback_answers_for_a_model_that_is_not_served(bus: Bus, name: str) -> None:
    await apply(bus, shipped_declaration())
    registry = Registry(bus, {f"large-{name}": (f"none-{name}", f"small-{name}")})
    await registry.start()
    assert registry.card(f"large-{name}") is None
    await put(bus, info(name, f"small-{name}"))
    await eventually(lambda: registry.card(f"large-{name}"))
    card = registry.card(f"large-{name}")
    assert card is not None
    assert card.name == f"small-{name}"
    await registry.stop()


async def test_a_draining_node_takes_no_work_and_is_gone_only_when_it_has_stopped(
    bus: Bus, registry: Registry, name: str
) -> None:
    gone: list[str] = []
    registry.on_gone.append(gone.append)
    await put(bus, info(name, f"m-{name}"))
    await eventually(lambda: name in registry.nodes)
    await put(bus, info(name, f"m-{name}", draining=True))
    await eventually(lambda: name in registry.draining)
    assert name not in registry.nodes
    assert registry.serving(f"m-{name}") == []
    assert name not in gone
    await Bucket(bus, BUCKET).delete(name)
    await eventually(lambda: name in gone)
    assert name not in registry.draining


async def test_a_node_without_heartbeats_is_removed(bus: Bus, registry: Registry, name: str) -> None:
    hasty = Registry(bus, lease_s=1.2)
    gone: list[str] = []
    hasty.on_gone.append(gone.append)
    await hasty.start()
    try:
        await put(bus, info(name, "m"))
        await eventually(lambda: name in hasty.nodes)
        await eventually(lambda: name in gone)
        assert name not in hasty.nodes
        assert name in registry.nodes
    finally:
        await hasty.stop()


async def test_roles_share_a_registry_until_the_last_has_stopped(bus: Bus, name: str) -> None:
    await apply(bus, shipped_declaration())
    shared = Registry(bus)
    await shared.start()
    await shared.start()
    await shared.stop()
    await put(bus, info(name, "m"))
    await eventually(lambda: name in shared.nodes)
    await shared.stop()
    await put(bus, info(name, "m", running=1))
    await bus.flush()
    assert shared.nodes[name].running == 0


async def test_an_entry_that_cannot_be_read_changes_nothing(
    bus: Bus, registry: Registry, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    await put(bus, info(name, "m"))
    await eventually(lambda: name in registry.nodes)
    await Bucket(bus, BUCKET).put(name, b"{}")
    await eventually(lambda: "cannot be read" in caplog.text)
    assert name in registry.nodes


async def test_the_view_is_replaced_and_never_changed(bus: Bus, registry: Registry, name: str) -> None:
    await put(bus, info(name, "m"))
    await eventually(lambda: name in registry.nodes)
    before = registry.nodes
    await put(bus, info(name, "m", running=1))
    await eventually(lambda: registry.nodes is not before)
    assert before[name].running == 0
    assert registry.nodes[name].running == 1


async def test_two_nodes_of_one_id_cannot_both_be_in(bus: Bus, registry: Registry, name: str) -> None:
    lost: list[str] = []
    first = NodeRegistration(bus, name, lambda: info(name, "first"), lambda: lost.append("first"))
    second = NodeRegistration(bus, name, lambda: info(name, "second"), lambda: lost.append("second"))
    await first.join()
    with pytest.raises(Conflict, match="already alive; choose another --id"):
        await second.join()
    await second.leave()  # it never was in, so it must not take the first one out
    await bus.flush()
    assert registry.nodes[name].serves("first")
    await first.leave()
    await eventually(lambda: name not in registry.nodes)
    assert not lost


async def test_an_entry_without_a_node_is_taken_out_unless_it_is_renewed(
    bus: Bus, registry: Registry, name: str
) -> None:
    """Nobody answers for either entry; the second one's node renews, so only its answers are lost."""
    dead = NodeRegistration(bus, name, lambda: info(name, "dead"), lambda: None)
    await put(bus, info(name, "dead"))
    await eventually(lambda: name in registry.nodes)
    gone: list[str] = []
    registry.on_gone.append(gone.append)
    await dead.claim()
    await eventually(lambda: gone == [name])
    alive = NodeRegistration(bus, name, lambda: info(name, "alive"), lambda: None)
    await alive.join()
    alive.notify_change()
    with pytest.raises(Conflict, match="already alive; choose another --id"):
        await dead.claim()
    await alive.claim()  # its own entry is no other's
    await alive.leave()


async def test_a_node_that_does_not_answer_is_waited_for_until_its_lease_ends(
    bus: Bus, registry: Registry, name: str
) -> None:
    await put(bus, info(name, "silent"))
    subscription = await bus.subscribe(NodeAddress(name).ping, lambda message: None)
    registration = NodeRegistration(bus, name, lambda: info(name, "next"), lambda: None)
    await registration.claim()
    await registration.join()
    await eventually(lambda: name in registry.nodes and registry.nodes[name].serves("next"))
    await registration.leave()
    await subscription.unsubscribe()


async def test_a_node_learns_that_its_id_was_taken(bus: Bus, name: str) -> None:
    await apply(bus, shipped_declaration())
    lost = asyncio.Event()
    registration = NodeRegistration(bus, name, lambda: info(name, "m"), lost.set)
    await registration.join()
    await put(bus, info(name, "usurper"))
    registration.notify_change()
    await asyncio.wait_for(lost.wait(), 30)
    await registration.leave()
    entry = await Bucket(bus, BUCKET).get(name)
    assert entry is not None
    assert b"usurper" in (entry.value or b"")
    await Bucket(bus, BUCKET).delete(name)
