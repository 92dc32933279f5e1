from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from actors.engine.onnx_backend import OnnxBackend
from actors.engine.settings import OnnxSettings
from actors.models.errors import CorruptModel
from orchestration.errors import ContextTooLong, InvalidRequest, Unavailable, UnknownModel
from orchestration.messages import ChatGeneration, EmbeddingGeneration
from tests.actors.engine.onnx.asking import EMBEDDER, MODEL, ask, chat, complete


async def test_an_unknown_model_is_refused_with_the_known_ones(backend: OnnxBackend) -> None:
    with pytest.raises(UnknownModel, match=f"{EMBEDDER}, {MODEL}"):
        await ask(backend, chat("Hi").model_copy(update={"model": "gpt-9"}))


async def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(backend: OnnxBackend) -> None:
    with pytest.raises(ContextTooLong, match=r"has 1\d{4} tokens.*8192") as caught:
        await ask(backend, chat("word " * 10000))
    assert caught.value.param == "messages"
    with pytest.raises(ContextTooLong) as caught:
        await ask(backend, complete("word " * 10000))
    assert caught.value.param == "prompt"


async def test_an_empty_conversation_is_refused(backend: OnnxBackend) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await ask(backend, ChatGeneration(id="test.empty", model=MODEL))
    assert caught.value.param == "messages"


async def test_kinds_that_a_model_does_not_do_are_refused(backend: OnnxBackend) -> None:
    with pytest.raises(InvalidRequest, match="makes no embeddings"):
        await ask(backend, EmbeddingGeneration(id="test.e", model=MODEL, inputs=("a",)))
    with pytest.raises(InvalidRequest, match="is an embedding model"):
        await ask(backend, chat("Hi").model_copy(update={"model": EMBEDDER}))


async def test_a_corrupt_weights_file_is_named_before_it_can_answer(
    chat_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(chat_folder, folder)
    weights = folder / "model.onnx.data"
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        file.write(b"garbage")
    broken = OnnxBackend([folder])
    with pytest.raises(CorruptModel, match=r"model\.onnx\.data is damaged"):
        await broken.start()
    with pytest.raises(Unavailable):
        await ask(broken, chat("Hi"))


async def test_a_cut_weights_file_and_a_missing_one_are_named(chat_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(chat_folder, folder)
    weights = folder / "model.onnx.data"
    with weights.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(CorruptModel, match=r"model\.onnx\.data is 1000 bytes"):
        await OnnxBackend([folder]).start()
    weights.unlink()
    with pytest.raises(CorruptModel, match=r"model\.onnx\.data is missing"):
        await OnnxBackend([folder]).start()


async def test_two_models_of_one_name_are_refused(chat_folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=f"two folders hold a model named '{MODEL}'"):
        await OnnxBackend([chat_folder, chat_folder]).start()


async def test_a_cache_too_small_for_the_model_is_refused_with_the_numbers(chat_folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"holds 0 tokens .* 46080 bytes each"):
        await OnnxBackend([chat_folder], OnnxSettings(kv_cache_bytes=1000)).start()
