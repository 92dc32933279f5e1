from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.declarations import shipped_declaration
from actors.bus.jetstream import Delivery, enqueue
from actors.bus.provision import apply, call_api
from actors.bus.subjects import GenerationQueue
from actors.dispatcher.queues import Queues
from orchestration.messages import Priority


class Pulled:
    """Queues whose generations are acknowledged at once."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.first = asyncio.Event()
        self.bodies: asyncio.Queue[bytes] = asyncio.Queue()
        self.queues = Queues(
            bus, self.deliver, max_models=2, on_first=self.first.set, idle_s=-1.0, check_s=0.0
        )

    def deliver(self, delivery: Delivery) -> None:
        delivery.settle(b"+ACK")
        self.bodies.put_nowait(delivery.message.data)

    async def pull(self, model: str) -> bytes:
        """Serve the model until a generation comes."""
        assert await self.queues.serve({model})
        self.queues.pull(lambda model: [1, 1, 1])
        return await asyncio.wait_for(self.bodies.get(), 30)


@pytest.fixture
async def pulled(bus: Bus) -> AsyncIterator[Pulled]:
    await apply(bus, shipped_declaration())
    pulled = Pulled(bus)
    await pulled.queues.start()
    yield pulled
    await pulled.queues.stop()


async def consumers(bus: Bus, model: str) -> set[str]:
    found = (await call_api(bus, f"CONSUMER.NAMES.{GenerationQueue.STREAM}"))["consumers"] or []
    return {GenerationQueue(priority, model).consumer for priority in Priority} & set(found)


async def put(bus: Bus, model: str, body: bytes) -> None:
    await enqueue(bus, GenerationQueue(Priority.STANDARD, model).subject, body, {})


async def test_a_model_has_consumers_from_its_first_generation_in_a_queue(bus: Bus, pulled: Pulled) -> None:
    model = f"m-{uuid4().hex[:8]}"
    assert await pulled.queues.serve({model})
    assert pulled.queues.models == {model}
    assert not pulled.queues.open
    assert await consumers(bus, model) == set()
    await put(bus, model, b"first")
    await asyncio.wait_for(pulled.first.wait(), 30)
    assert await pulled.pull(model) == b"first"
    assert len(await consumers(bus, model)) == 3


async def test_a_generation_that_nobody_heard_of_is_found(bus: Bus, pulled: Pulled) -> None:
    model = f"m-{uuid4().hex[:8]}"
    await put(bus, model, b"before")
    assert await pulled.pull(model) == b"before"


async def test_queues_that_are_empty_again_are_listened_to(bus: Bus, pulled: Pulled) -> None:
    model = f"m-{uuid4().hex[:8]}"
    await put(bus, model, b"one")
    assert await pulled.pull(model) == b"one"
    await bus.flush()
    while pulled.queues.open:  # until the server has counted the acknowledgement
        assert await pulled.queues.serve({model})
    assert pulled.queues.models == {model}
    pulled.first.clear()
    await put(bus, model, b"two")
    await asyncio.wait_for(pulled.first.wait(), 30)
    assert await pulled.pull(model) == b"two"
    assert pulled.queues.models == {model}


async def test_nothing_is_served_after_the_stop(bus: Bus, pulled: Pulled) -> None:
    await pulled.queues.stop()
    assert await pulled.queues.serve({"late"})
    assert not pulled.queues.models


@pytest.mark.parametrize("part", [".pull.", "queued."])
async def test_a_stop_while_queues_are_opened_leaves_nothing_behind(
    bus: Bus, pulled: Pulled, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    model, subscribe = f"m-{uuid4().hex[:8]}", Bus.subscribe
    await put(bus, model, b"one")

    async def stop_after(bus: Bus, subject: str, handler: Callable[[Message], None]) -> Subscription:
        subscription = await subscribe(bus, subject, handler)
        if part in subject:
            await pulled.queues.stop()
        return subscription

    before = list(bus.on_reconnect)
    monkeypatch.setattr(Bus, "subscribe", stop_after)
    assert await pulled.queues.serve({model})
    assert not pulled.queues.models
    assert set(bus.on_reconnect) <= set(before)
    monkeypatch.undo()
    after = Pulled(bus)
    assert await after.pull(model) == b"one"
    await after.queues.stop()


async def test_nothing_is_remembered_of_models_that_are_gone(bus: Bus, pulled: Pulled) -> None:
    models = [f"m-{uuid4().hex[:8]}" for _ in range(5)]
    for model in models:
        await put(bus, model, b"one")
        assert await pulled.pull(model) == b"one"
    kept = pulled.queues.models
    assert 1 <= len(kept) <= 2
    assert pulled.queues._used_at.keys() | pulled.queues._filled <= kept
