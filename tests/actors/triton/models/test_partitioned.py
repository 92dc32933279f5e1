"""A partitioned model in a real tritonserver: driver, ensemble, stages."""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tritonclient.grpc.aio import InferenceServerClient

from actors.engine.backend import EngineBackend
from actors.engine.sessions.torch_runtime import TorchRuntime
from actors.engine.settings import TorchSettings
from actors.triton.repository import write_repository
from actors.triton.repository_plan import ModelSpec
from tests.actors.engine.onnx.asking import MODEL, chat
from tests.actors.engine.onnx.asking import ask as ask_engine
from tests.actors.triton.llm import ask, inputs, responses
from tests.fixtures.eventually import eventually
from tests.fixtures.models import smollm2_folder
from tests.fixtures.triton import RunningTriton, start_triton

QUESTIONS = [
    "Which city is the capital of France?",
    "What do bees make?",
    "Tell me about rain.",
    "Count to ten.",
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    """SmolLM2 in two stages, on a server that a test leaves with a request that never ends."""
    server = start_triton(tmp_path_factory.mktemp("partitioned"))
    try:
        folder = smollm2_folder()
        write_repository(server.repository, folder.parent, [MODEL], ModelSpec(partitions=2), force=True)
        server.load(f"{MODEL}-pipeline")
        server.load(MODEL)
        yield server
    finally:
        server.kill()
        server.stop()


@pytest.fixture
async def client(served: RunningTriton) -> AsyncIterator[InferenceServerClient]:
    async with InferenceServerClient(served.address) as made:
        yield made


def held(server: RunningTriton) -> list[int]:
    """Tokens that the stages say they hold."""
    with urllib.request.urlopen(server.metrics_url, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return [int(float(line.split()[-1])) for line in lines if line.startswith("orchestra_stage_tokens{")]


async def test_a_partitioned_model_in_triton_gives_the_tokens_of_the_whole(
    client: InferenceServerClient,
) -> None:
    settings = TorchSettings()
    whole = EngineBackend([smollm2_folder()], settings, TorchRuntime(settings))
    await whole.start()
    try:
        expected = [(await ask_engine(whole, chat(text, max_tokens=12))).text for text in QUESTIONS]
    finally:
        await whole.close()
    answers = await asyncio.gather(*(ask(client, MODEL, text, max_tokens=12) for text in QUESTIONS))
    assert [answer.error for answer in answers] == [""] * len(QUESTIONS)
    assert [answer.text for answer in answers] == expected


async def test_the_stages_of_a_cancelled_stream_are_empty_again(
    client: InferenceServerClient, served: RunningTriton
) -> None:
    stream = responses(client, MODEL, inputs("Tell me a long story.", max_tokens=400))
    _, error = await anext(stream)
    assert error is None
    assert min(held(served)) > 0
    await stream.aclose()
    await eventually(lambda: held(served) == [0, 0])


async def test_a_driver_that_was_killed_and_loaded_again_answers_and_leaves_nothing_in_the_stages(
    client: InferenceServerClient, served: RunningTriton
) -> None:
    stream = responses(client, MODEL, inputs("Tell me a long story.", max_tokens=400))
    await anext(stream)
    (driver,) = [pid for pid in served.stubs() if f"/{MODEL}/1/" in command(pid)]
    os.kill(driver, signal.SIGKILL)
    await asyncio.to_thread(served.unload, MODEL)
    await asyncio.to_thread(served.load, MODEL)
    answer = await ask(client, MODEL, QUESTIONS[0], max_tokens=12)
    assert "Paris" in answer.text
    await eventually(lambda: held(served) == [0, 0])


async def test_a_killed_stage_fails_its_streams_and_serves_once_it_is_loaded_again(
    client: InferenceServerClient, served: RunningTriton
) -> None:
    stream = responses(client, MODEL, inputs("Tell me a long story.", max_tokens=400))
    await anext(stream)
    (stage,) = [pid for pid in served.stubs() if f"/{MODEL}-stage-1/1/" in command(pid)]
    os.kill(stage, signal.SIGKILL)
    async with asyncio.timeout(30):
        errors = [error.message() async for _, error in stream if error is not None]
    assert len(errors) == 1
    assert errors[0].startswith("backend_failed: ")
    assert f"'{MODEL}-stage-1_0_0' is not healthy" in errors[0]
    await asyncio.to_thread(served.unload, f"{MODEL}-stage-1")
    await asyncio.to_thread(served.load, f"{MODEL}-pipeline")
    answer = await ask(client, MODEL, QUESTIONS[0], max_tokens=12)
    assert "Paris" in answer.text


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
