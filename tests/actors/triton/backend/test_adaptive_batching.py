"""Dynamic batching moves with the load of a real server."""

from __future__ import annotations

import asyncio

import pytest
from tritonclient.grpc import service_pb2

from actors.triton.backend.adaptive_batching import observe
from orchestration.batching import AdaptiveBatching, BatchingSettings
from tests.actors.triton.backend.embeddings import vectors
from tests.actors.triton.backend.repository import backend_for, embedding_model
from tests.fixtures.eventually import eventually
from tests.fixtures.triton import RunningTriton

PACE = {"batching_target_s": 0.1, "batching_hold_s": 0.3, "batching_calm_s": 600, "watch_s": 0.1}


async def test_under_pressure_the_batches_of_a_model_grow_and_nothing_fails(
    triton_server: RunningTriton,
) -> None:
    name = embedding_model(triton_server)
    async with backend_for(triton_server, name, **PACE) as backend:
        stop = asyncio.Event()

        async def ask() -> None:
            while not stop.is_set():
                assert (await vectors(backend, name, ["slow"]))[0][0] == 4

        async def grown() -> bool:
            config = await backend._running().config(name)
            return 4 in config.dynamic_batching.preferred_batch_size

        assert not await grown()
        async with asyncio.TaskGroup() as group:
            for _ in range(48):
                group.create_task(ask())
            await eventually(grown, within_s=60)
            stop.set()
    triton_server.unload(name)


async def test_requests_wait_for_company_under_pressure_and_no_longer_once_it_is_quiet(
    triton_server: RunningTriton,
) -> None:
    """Three callers keep the model busy and fill no batch of four by themselves."""
    name = embedding_model(triton_server, preferred=4)
    async with backend_for(triton_server, name, **PACE | {"batching_calm_s": 2}) as backend:

        async def window_us() -> int:
            config = await backend._running().config(name)
            assert list(config.dynamic_batching.preferred_batch_size) == [4], "a smaller one ends every wait"
            return int(config.dynamic_batching.max_queue_delay_microseconds)

        async def waits() -> bool:
            return await window_us() > 5000

        async def waits_no_longer() -> bool:
            return await window_us() == 0

        async def ask() -> None:
            while not pressed.is_set():
                await vectors(backend, name, ["slow"])

        pressed = asyncio.Event()
        assert await waits_no_longer()
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(ask())
            await eventually(waits, within_s=60)
            pressed.set()
        await eventually(waits_no_longer, within_s=60)
        assert (await vectors(backend, name, ["quick"]))[0].tolist() == [5, 1]
    triton_server.unload(name)


def statistics(*batches: tuple[int, int, float], queued_s: float) -> service_pb2.ModelStatistics:
    """Of batches by size, count and seconds each; all that came were queued `queued_s` on average."""
    found = service_pb2.ModelStatistics(execution_count=sum(count for _, count, _ in batches))
    for size, count, took_s in batches:
        batch = found.batch_stats.add(batch_size=size)
        batch.compute_infer.count = count
        batch.compute_infer.ns = round(count * took_s * 1e9)
        found.inference_stats.queue.count += size * count
    found.inference_stats.queue.ns = round(found.inference_stats.queue.count * queued_s * 1e9)
    return found


@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_batch_takes_is_read_from_what_came_between_two_readings(restarted: bool) -> None:
    policy = AdaptiveBatching(BatchingSettings(target_s=1, sizes=(1, 2, 4, 8), horizon_s=1), 0.0)
    late = statistics((1, 10, 0.03), (4, 10, 0.06), queued_s=0.7)
    before = statistics((1, 90, 9.0), queued_s=9.0) if restarted else service_pb2.ModelStatistics()
    observe(policy, before, late, 1.0)
    assert policy.decide(1.0).size > 1
    assert policy.fixed_s == pytest.approx(0.02)
    assert policy.each_s == pytest.approx(0.01)
