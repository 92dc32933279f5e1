"""Llamas in PyTorch compute what the file says, and what the same model in onnxruntime says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Type

from actors.engine.backend import EngineBackend
from actors.engine.sessions.torch import LlamaLayers, tensor_of
from actors.engine.sessions.torch_linear import Linear
from actors.engine.sessions.torch_runtime import TorchRuntime, TorchSession
from actors.engine.settings import TorchSettings
from actors.models.gguf_import import import_gguf
from actors.models.manifest import ModelManifest
from orchestration.errors import BackendFailed, InvalidRequest
from tests.actors.engine.onnx.asking import EMBEDDER, MODEL, ask, chat
from tests.actors.models.llama_reference import LlamaReference, relative_error
from tests.actors.models.tiny_gguf import SHAPES, Tiny, write
from tests.fixtures.models import minilm_folder, smollm2_folder

IDS = np.array([1, 40, 77, 90, 120, 200, 3, 65, 66, 67, 2, 258, 259, 100, 101, 40, 30], np.int64)


def imported(tmp_path: Path, tiny: Tiny) -> tuple[Path, LlamaReference]:
    file = write(tmp_path / "tiny.gguf", tiny)
    folder = tmp_path / "models" / "tiny"
    import_gguf(file, "tiny", folder)
    return folder, LlamaReference(file)


@pytest.mark.parametrize("tiny", SHAPES.values(), ids=SHAPES)
def test_every_shape_of_llama_gives_the_logits_of_plain_numpy(tmp_path: Path, tiny: Tiny) -> None:
    folder, reference = imported(tmp_path, tiny)
    expected = reference.logits(IDS.tolist())
    layers = LlamaLayers(folder, ModelManifest.read(folder))
    session = TorchSession(layers, layers.cache(rows=3, length=32))
    assert relative_error(session.prefill(2, IDS[:9], 0), expected[8]) < 2e-5
    assert relative_error(session.prefill(2, IDS[9:10], 9), expected[9]) < 2e-5
    for row, count in enumerate((5, 11, 8)):
        session.prefill(row, IDS[:count], 0)
    lengths = np.array([5, 11, 8], np.int32)
    together = session.decode(IDS[lengths], lengths)
    for row, length in enumerate(lengths):
        assert relative_error(together[row], expected[length]) < 2e-5


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_layers_in_parts_give_the_logits_of_the_whole(tmp_path: Path, tied: bool) -> None:
    folder, reference = imported(tmp_path, Tiny(layers=3, type=Type.Q8_0, tied=tied))
    manifest = ModelManifest.read(folder)
    parts = [
        LlamaLayers(folder, manifest, first=first, last=last) for first, last in ((0, 1), (1, 2), (2, 3))
    ]
    caches = [tensor_of(part.cache(rows=2, length=32)) for part in parts]
    x = torch.tensor(IDS[None])
    for part, kv in zip(parts, caches, strict=True):
        x = part.run(x, kv, 1, np.zeros(1, np.int64))
    assert relative_error(x.numpy()[0], reference.logits(IDS.tolist())[-1]) < 2e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["laid_out_anew", "as_it_is"])
@pytest.mark.parametrize("rows", [1, 3, 16, 40])
def test_products_are_those_of_the_matrix_as_it_was(rows: int, dtype: torch.dtype) -> None:
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    x = torch.randn(rows, 2, 64, generator=torch.Generator().manual_seed(rows)).to(dtype)
    linear = Linear(weight)
    assert linear.packed is (dtype == torch.float32)
    expected = x.double() @ weight.double().T
    assert relative_error(linear(x).float().numpy(), expected.numpy()) < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize(("dtype", "most"), [("float16", 0.01), ("bfloat16", 0.05)])
def test_half_precision_stays_near_full_precision(tmp_path: Path, dtype: str, most: float) -> None:
    folder, reference = imported(tmp_path, Tiny(type=Type.Q4_1))
    layers = LlamaLayers(folder, ModelManifest.read(folder), dtype=dtype)
    session = TorchSession(layers, layers.cache(rows=1, length=32))
    assert relative_error(session.prefill(0, IDS, 0), reference.logits(IDS.tolist())[-1]) < most


@pytest.fixture(scope="module")
def backend() -> Iterator[EngineBackend]:
    settings = TorchSettings(slots=4)
    made = EngineBackend([smollm2_folder()], settings, TorchRuntime(settings))
    asyncio.run(made.start())
    yield made
    asyncio.run(made.close())


async def test_generations_together_give_what_each_gives_alone(backend: EngineBackend) -> None:
    asked = [chat(f"Which city is the capital of {land}?", max_tokens=12) for land in ("France", "Italy")]
    asked.append(chat("What do bees make? Answer in one long sentence, please.", max_tokens=12))
    together = await asyncio.gather(*(ask(backend, each) for each in asked))
    alone = [await ask(backend, each) for each in asked]
    assert [each.text for each in together] == [each.text for each in alone]
    assert together[0].text == "The capital of France is Paris."


async def test_a_prompt_seen_before_is_reused_and_answered_alike(backend: EngineBackend) -> None:
    long = "Say in one word what this is about: " + "the tall tree stands in the old forest. " * 4
    first = await ask(backend, chat(long, max_tokens=8))
    again = await ask(backend, chat(long, max_tokens=8))
    assert again.finish.usage.cached_tokens >= 16
    assert again.text == first.text


def test_a_device_that_is_not_here_is_named() -> None:
    with pytest.raises(BackendFailed, match=r"'cuda:99' does not exist; torch has \d+ CUDA devices"):
        TorchRuntime(TorchSettings(device="cuda:99"))


async def test_half_precision_bounds_the_context_by_the_memory_that_each_row_takes() -> None:
    settings = TorchSettings(slots=3, dtype="float16", kv_cache_bytes=4 * 100 * 23040)
    backend = EngineBackend([smollm2_folder()], settings, TorchRuntime(settings))
    await backend.start()
    try:
        assert [card.context_tokens for card in backend.models] == [98]
        answer = await ask(backend, chat("Which city is the capital of France?", max_tokens=8))
        assert "Paris" in answer.text
    finally:
        await backend.close()
    assert MODEL not in backend.loaded


async def test_a_model_that_embeds_is_refused_by_name() -> None:
    settings = TorchSettings()
    backend = EngineBackend([minilm_folder()], settings, TorchRuntime(settings))
    with pytest.raises(InvalidRequest, match=f"'{EMBEDDER}' is an embedding model"):
        await backend.start()
