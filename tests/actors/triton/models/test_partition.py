"""A partitioned model answers like the whole one, and leaves nothing in its stages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from actors.engine.backend import EngineBackend
from actors.engine.sessions.torch_runtime import TorchRuntime
from actors.engine.settings import EngineSettings, TorchSettings
from actors.triton.models.partition import LayerRange, StepCall, split_layers
from orchestration.errors import BackendFailed, InvalidRequest
from tests.actors.engine.onnx.asking import ask, chat, generating
from tests.actors.triton.models.stages import Stages
from tests.fixtures.eventually import eventually
from tests.fixtures.models import smollm2_folder

SETTINGS = EngineSettings(slots=4, prefix_cache_bytes=16 << 20)


def test_layers_are_shared_out_evenly() -> None:
    assert split_layers(30, 1) == [LayerRange(0, 30)]
    assert split_layers(30, 4) == [
        LayerRange(0, 8),
        LayerRange(8, 16),
        LayerRange(16, 23),
        LayerRange(23, 30),
    ]
    assert split_layers(3, 3) == [LayerRange(0, 1), LayerRange(1, 2), LayerRange(2, 3)]


@pytest.mark.parametrize("partitions", [0, 31])
def test_a_model_is_not_cut_into_more_parts_than_it_has_layers(partitions: int) -> None:
    with pytest.raises(InvalidRequest, match=f"30 layers cannot be split into {partitions} partitions"):
        split_layers(30, partitions)


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    made = Stages.load(smollm2_folder(), 3, SETTINGS)
    yield made
    made.close()


@pytest.fixture
async def driver(stages: Stages) -> AsyncIterator[EngineBackend]:
    made = stages.driver(smollm2_folder(), SETTINGS)
    await made.start()
    yield made
    await made.close()


async def test_a_partitioned_model_gives_the_tokens_of_the_whole(driver: EngineBackend) -> None:
    settings = TorchSettings(slots=4)
    whole = EngineBackend([smollm2_folder()], settings, TorchRuntime(settings))
    await whole.start()
    asked = [
        chat(f"Tell me about {what}.", max_tokens=8 + 4 * at)
        for at, what in enumerate(("bees", "rain", "tea"))
    ]
    try:
        for backend in (whole, driver):
            # One more comes while the others run, so that rows are moved.
            running = [asyncio.create_task(ask(backend, each)) for each in asked]
            running.append(asyncio.create_task(ask(backend, chat("What do bees make?", max_tokens=12))))
            answers = await asyncio.gather(*running)
            if backend is whole:
                expected = [answer.text for answer in answers]
    finally:
        await whole.close()
    assert [answer.text for answer in answers] == expected


async def test_stages_hold_nothing_once_a_generation_has_ended(driver: EngineBackend, stages: Stages) -> None:
    await ask(driver, chat("What do bees make?", max_tokens=4))
    await eventually(lambda: stages.held == [0, 0, 0])


async def test_stages_hold_nothing_once_a_generation_is_cancelled(
    driver: EngineBackend, stages: Stages
) -> None:
    async with generating(driver, chat("Tell me a long story.", max_tokens=400)) as items:
        async for _ in items:
            assert min(stages.held) > 0
            break
    await eventually(lambda: stages.held == [0, 0, 0])


async def test_beginnings_of_prompts_are_kept_in_the_stages(driver: EngineBackend) -> None:
    long = "Say in one word what this is about: " + "the tall tree stands in the old forest. " * 4
    first = await ask(driver, chat(long, max_tokens=8))
    again = await ask(driver, chat(long, max_tokens=8))
    assert again.finish.usage.cached_tokens >= 16
    assert again.text == first.text


async def test_stages_free_what_a_driver_left_when_the_next_one_comes(stages: Stages) -> None:
    dead = stages.driver(smollm2_folder(), SETTINGS)
    await dead.start()
    async with generating(dead, chat("Tell me a long story.", max_tokens=400)) as items:
        await anext(items)
        left = max(stages.held)
        successor = stages.driver(smollm2_folder(), SETTINGS)
        await successor.start()
        answer = await ask(successor, chat("Which city is the capital of France?", max_tokens=1))
        assert answer.text
        with pytest.raises(BackendFailed, match="obeys a newer driver"):
            [item async for item in items]
    assert left > 0
    await eventually(lambda: stages.held == [0, 0, 0])
    await successor.close()
    await dead.close()


async def test_a_silent_driver_loses_its_rows_and_is_told_so_when_it_comes_back() -> None:
    stages = Stages.load(smollm2_folder(), 2, SETTINGS, ttl_s=0.2)

    def step(held: int) -> StepCall:
        nothing = np.empty((0, 4), np.int32)
        return StepCall(driver=1, row=0, lengths=np.array([held], np.int32), commands=nothing)

    try:
        stages.call(step(0), np.array([[1, 2, 3]]))
        await eventually(lambda: stages.held == [0, 0])
        with pytest.raises(BackendFailed, match="'stage-0' lost row 0"):
            stages.call(step(3), np.array([[4]]))
        assert stages.call(step(0), np.array([[1, 2, 3]])).shape == (1, 49152)
    finally:
        stages.close()
