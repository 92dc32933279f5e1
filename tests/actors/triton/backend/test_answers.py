"""The catalogue's own models in Triton give, through the backend, what the ONNX node gives."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from actors.engine.onnx_backend import OnnxBackend
from actors.installation.data_files import data_folder
from actors.triton.backend.backend import TritonBackend
from actors.triton.config import CONFIG, parse
from actors.triton.repository import write_repository
from actors.triton.repository_plan import ModelSpec
from orchestration.errors import ContextTooLong, InvalidGuide, InvalidRequest
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    Continuation,
    Generation,
    GuidedDecoding,
    Sampling,
)
from tests.actors.triton.backend.embeddings import vectors
from tests.actors.triton.backend.repository import answered, backend_for
from tests.fixtures.eventually import eventually
from tests.fixtures.models import minilm_folder, models_folder, smollm2_folder
from tests.fixtures.triton import RunningTriton

CHAT, EMBEDDER = "smollm2-135m", "all-minilm-l6-v2"
QUESTIONS = (
    "Which city is the capital of France?",
    "What do bees make? Answer in one sentence.",
    "Count from one to five.",
)


@pytest.fixture(scope="module")
def written(triton_server: RunningTriton) -> Iterator[RunningTriton]:
    """A server with both models in its repository, the chat model by onnxruntime."""
    smollm2_folder(), minilm_folder()
    spec = ModelSpec(runtime="onnxruntime")
    write_repository(triton_server.repository, models_folder(), [CHAT, EMBEDDER], spec, force=True)
    yield triton_server
    for name in (CHAT, EMBEDDER):
        triton_server.unload(name)


@pytest.fixture
async def triton(written: RunningTriton) -> AsyncIterator[TritonBackend]:
    async with backend_for(written, CHAT, EMBEDDER) as backend:
        yield backend


@pytest.fixture
async def onnx() -> AsyncIterator[OnnxBackend]:
    backend = OnnxBackend([smollm2_folder(), minilm_folder()])
    await backend.start()
    yield backend
    await backend.close()


def question(text: str, **more: object) -> Generation:
    said = {"temperature": 0.0, "max_tokens": 24, **more}
    messages = (ChatMessage(role="user", content=text),)
    return ChatGeneration(id="test.1", model=CHAT, messages=messages, sampling=Sampling.model_validate(said))


async def test_greedy_answers_and_vectors_are_those_of_the_onnx_node(
    triton: TritonBackend, onnx: OnnxBackend
) -> None:
    for text in QUESTIONS:
        text_there, end_there = await answered(triton, question(text))
        text_here, end_here = await answered(onnx, question(text))
        assert (text_there, end_there.reason) == (text_here, end_here.reason)
        assert end_there.usage.completion_tokens == end_here.usage.completion_tokens
    texts = [f"text number {number} " * (number % 7 + 1) for number in range(70)]
    there, here = await vectors(triton, EMBEDDER, texts), await vectors(onnx, EMBEDDER, texts)
    assert np.allclose(there, here, atol=0.02)


def readmes(language: str) -> list[str]:
    """The blocks of code in the README of the templates."""
    text = (data_folder("triton_models") / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


async def test_the_readmes_client_is_answered_without_orchestra(
    triton: TritonBackend, written: RunningTriton
) -> None:
    (code,) = readmes("python")
    assert "127.0.0.1:8001" in code
    words = [sys.executable, "-c", code.replace("127.0.0.1:8001", written.address)]
    client = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=120)
    assert client.returncode == 0, client.stderr
    one, other = await vectors(triton, EMBEDDER, ["Bees make honey.", "Honey is made by bees."])
    answer, _ = await answered(triton, question("What do bees make? Answer in one sentence."))
    assert client.stdout == f"similarity {one @ other:.2f}\n{answer}"


def test_the_readmes_data_for_perf_analyzer_are_inputs_of_the_models(written: RunningTriton) -> None:
    blocks = [json.loads(block)["data"] for block in readmes("json")]
    for model, data in zip((EMBEDDER, CHAT), blocks, strict=True):
        config = parse((written.repository / model / CONFIG).read_text(), model)
        assert {name for each in data for name in each} <= {tensor.name for tensor in config.input}
    for each in blocks[1]:
        (messages,), (sampling,) = each["messages"], each["sampling_parameters"]
        Sampling.model_validate_json(sampling)
        assert [ChatMessage.model_validate(message).role for message in json.loads(messages)] == ["user"]


async def test_a_seed_a_schema_and_a_prefix_reach_the_model(triton: TritonBackend, onnx: OnnxBackend) -> None:
    text = "Tell of a ship."
    seeded = question(text, temperature=0.9, seed=7, stop=("zebra",))
    assert (await answered(triton, seeded))[0] == (await answered(onnx, seeded))[0]
    guide = GuidedDecoding(regex="(yes|no)")
    guided = question("Is water wet?").model_copy(update={"guide": guide})
    assert (await answered(triton, guided))[0] in ("yes", "no")
    whole, _ = await answered(triton, question(text))
    begun = question(text).model_copy(update={"continuation": Continuation(text=whole[:20], tokens=5)})
    assert (await answered(triton, begun))[0] == (await answered(onnx, begun))[0]


async def test_what_the_model_refuses_is_the_callers_error(triton: TritonBackend) -> None:
    with pytest.raises(ContextTooLong, match="8192"):
        await answered(triton, question("ship " * 9000))
    wrong = question("x").model_copy(update={"guide": GuidedDecoding(json_schema={"type": "no such type"})})
    with pytest.raises(InvalidGuide):
        await answered(triton, wrong)


async def test_the_batching_of_an_embedding_model_is_changed_while_it_answers(
    triton: TritonBackend, written: RunningTriton
) -> None:
    texts = [f"text number {number}" for number in range(8)]
    before = await vectors(triton, EMBEDDER, texts)
    changing = asyncio.create_task(triton.set_batching(EMBEDDER, 0.003, (4, 64)))
    answers = 0
    while not changing.done():
        assert np.allclose(await vectors(triton, EMBEDDER, texts), before, atol=0.02)
        answers += 1
    assert await changing
    assert answers > 1
    assert not await triton.set_batching(EMBEDDER, 0.003, (4, 64))
    batching = (await triton._running().config(f"{EMBEDDER}-encoder")).dynamic_batching
    assert list(batching.preferred_batch_size) == [4, 32]
    assert batching.max_queue_delay_microseconds == 3000
    assert np.allclose(await vectors(triton, EMBEDDER, texts), before, atol=0.02)
    with pytest.raises(InvalidRequest, match="does not batch"):
        await triton.set_batching(CHAT, 0.003, (4,))


async def test_others_requests_count_as_load(triton: TritonBackend, written: RunningTriton) -> None:
    """Read from Triton's metrics: what this node asked itself is not counted twice."""
    async with backend_for(written, CHAT) as other:
        asked = [
            asyncio.create_task(answered(other, question("Tell a story.", max_tokens=400))) for _ in range(3)
        ]
        await eventually(lambda: triton.external_load >= 3)
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    await eventually(lambda: triton.external_load == 0)
