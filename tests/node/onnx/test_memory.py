"""A model that is unloaded gives its memory back, and one that cannot be loaded says why."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from actors.models.errors import CorruptModel
from actors.models.manifest import MANIFEST, ModelManifest
from actors.node.backends.onnx import OnnxBackend
from actors.node.memory import ModelMemory
from orchestration.errors import BackendFailed, UnknownModel
from tests.node.onnx.asking import MODEL, ask, chat

OTHER = "smollm2-again"


def resident_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def under_another_name(folder: Path, name: str, into: Path) -> Path:
    """The same model once more: its files are links."""
    other = into / name
    shutil.copytree(folder, other, copy_function=os.link)
    manifest = ModelManifest.read(folder).model_copy(update={"name": name})
    (other / MANIFEST).unlink()
    (other / MANIFEST).write_text(manifest.model_dump_json())
    return other


@pytest.fixture
async def two(chat_folder: Path) -> AsyncIterator[OnnxBackend]:
    """The same model under two names, in a folder beside the real one so that links can be made."""
    into = chat_folder.parent / f".test-{os.getpid()}"
    backend = OnnxBackend([chat_folder, under_another_name(chat_folder, OTHER, into)])
    yield backend
    await backend.close()
    shutil.rmtree(into)


async def test_what_is_unloaded_gives_its_memory_back_and_answers_the_same_when_it_is_back(
    two: OnnxBackend,
) -> None:
    size = ModelManifest.read(two._folders[0]).sizes["model.onnx.data"]
    memory = ModelMemory("n", two, 2 * size - 1, lambda: None)
    await memory.start()
    assert {card.name: card.loaded for card in memory.cards} == {MODEL: True, OTHER: False}
    before = await ask(two, chat("What is the capital of France?", max_tokens=12))
    with pytest.raises(BackendFailed, match="'smollm2-again' is not loaded"):
        await ask(two, chat("Hello").model_copy(update={"model": OTHER}))
    held = resident_mb()
    assert await memory.unload(MODEL)
    assert resident_mb() < held - 0.8 * size / 1e6
    assert await memory.load(MODEL)
    assert (await ask(two, chat("What is the capital of France?", max_tokens=12))).text == before.text
    assert await memory.load(OTHER)
    assert two.loaded == {OTHER}
    other = chat("What is the capital of France?", max_tokens=12).model_copy(update={"model": OTHER})
    assert (await ask(two, other)).text == before.text
    assert (memory.told.loads, memory.told.unloads, memory.told.swaps) == (2, 2, 1)


async def test_a_damaged_file_is_named_when_it_is_loaded_and_the_node_goes_on(two: OnnxBackend) -> None:
    card_bytes = sum(ModelManifest.read(two._folders[0]).sizes.values())
    memory = ModelMemory("n", two, card_bytes, lambda: None)
    await memory.start()
    tokenizer = two._folders[1] / "tokenizer.json"
    sound = tokenizer.read_bytes()
    tokenizer.unlink()  # it is a link to the real model's
    tokenizer.write_bytes(sound[:-1] + b" ")
    with pytest.raises(CorruptModel, match=r"tokenizer\.json is damaged"):
        await memory.load(OTHER)
    assert not any(card.loaded for card in memory.cards)
    assert await memory.load(MODEL)
    assert (await ask(two, chat("Hello", max_tokens=4))).finish.reason == "length"
    with pytest.raises(UnknownModel, match=OTHER):
        await memory.load("nothing")
