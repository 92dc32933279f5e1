"""A model that is unloaded gives its memory back, and one that cannot be loaded says why."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
import pytest

from actors.engine.onnx_backend import OnnxBackend
from actors.engine.sessions.onnx_encoder import OnnxEncoder
from actors.engine.settings import OnnxSettings
from actors.models.errors import CorruptModel
from actors.models.manifest import MANIFEST, ModelManifest
from actors.node.model_manager import ModelManager
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.system import ActorSystem
from orchestration.errors import BackendFailed, UnknownModel
from tests.actors.engine.onnx.asking import MODEL, ask, chat, complete
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import local_cluster
from tests.fixtures.models import minilm_folder
from tests.fixtures.nats import RunningNats

OTHER = "smollm2-again"


def resident_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def under_another_name(folder: Path, name: str, into: Path) -> Path:
    """A copy of the model with another name."""
    other = into / name
    shutil.copytree(folder, other)  # no hard links: onnx refuses data that has several
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
    memory = ModelManager("n", two, 2 * size - 1, lambda: None)
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
    assert (memory.memory_use.loads, memory.memory_use.unloads, memory.memory_use.swaps) == (2, 2, 1)


async def test_a_damaged_file_is_named_when_it_is_loaded_and_the_node_goes_on(two: OnnxBackend) -> None:
    card_bytes = sum(ModelManifest.read(two._folders[0]).sizes.values())
    memory = ModelManager("n", two, card_bytes, lambda: None)
    await memory.start()
    tokenizer = two._folders[1] / "tokenizer.json"
    sound = tokenizer.read_bytes()
    tokenizer.unlink()  # it is a link to the real model's
    tokenizer.write_bytes(sound[:-1] + b" ")
    with pytest.raises(CorruptModel, match=r"tokenizer\.json is damaged"):
        await memory.load(OTHER)
    assert not any(card.loaded for card in memory.cards)
    assert await memory.load(MODEL)
    with pytest.raises(BackendFailed, match=r"could not load model 'smollm2-again': .*tokenizer\.json"):
        memory.acquire(OTHER)
    assert two.loaded == {MODEL}, "it did not leave for one that cannot be loaded"
    assert (await ask(two, chat("Hello", max_tokens=4))).finish.reason == "length"
    with pytest.raises(UnknownModel, match=OTHER):
        await memory.load("nothing")


async def test_two_models_that_do_not_fit_together_both_answer_by_turns(
    two: OnnxBackend, nats_server: RunningNats
) -> None:
    weights = sum(
        size
        for name, size in ModelManifest.read(two._folders[0]).sizes.items()
        if name.startswith("model.onnx")
    )
    async with local_cluster(nats_server.url) as here:
        settings = NodeSettings(id=f"onnx-{here.model[-8:]}", memory_mb=1.5 * weights / 1e6)
        node = await here.stack.enter_async_context(run_node(here.bus, two, settings, ActorSystem()))
        dispatcher = await here.dispatcher(sees=0)
        await eventually(lambda: dispatcher.registry.serving(OTHER))
        asked = [chat("What is the capital of France?", max_tokens=8) for _ in range(8)]
        answers = await asyncio.gather(
            *(
                here.ask(
                    each.model_copy(update={"id": here.streams.new_id(), "model": (MODEL, OTHER)[n % 2]})
                )
                for n, each in enumerate(asked)
            )
        )
        assert len({text for text, _ in answers}) == 1
        assert [ended.finish.model for _, ended in answers] == [MODEL, OTHER] * 4
        use = node.describe().memory
        assert 1 <= use.swaps <= 2
        await here.settled(dispatcher)


def test_memory_comes_back_after_long_prompts_and_long_texts(chat_folder: Path) -> None:
    """In a process of its own, whose memory is that of this engine alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(_read_long_texts, chat_folder).result()


def _read_long_texts(chat_folder: Path) -> None:
    asyncio.run(read_long_texts(chat_folder))


async def read_long_texts(chat_folder: Path) -> None:
    """Kept, the prompts would hold 40 MB twice, as rows and as prefixes, and the texts 150 MB. Freed, they
    leave 20 to 60 MB of pieces that the allocator cannot give back."""
    settings = OnnxSettings(idle_after_s=0.2, idle_prefix_bytes=0)
    backend, encoder = OnnxBackend([chat_folder], settings), OnnxEncoder(minilm_folder(), settings)
    await backend.start()
    try:
        await ask(backend, complete("One", max_tokens=2))
        encoder.embed([[101, 102]])
        before = resident_mb()
        prompts = [complete(f"{word} " * 450, max_tokens=2) for word in ("one", "two")]
        answers = asyncio.gather(*(ask(backend, prompt) for prompt in prompts))
        await eventually(lambda: backend.cache_bytes > 30e6, within_s=60)
        assert resident_mb() > before + 20
        await answers
        await asyncio.to_thread(encoder.embed, [list(range(1000, 1512))] * 5)
        await eventually(lambda: backend.cache_bytes == 0 and resident_mb() < before + 75)
        again = await ask(backend, prompts[0].model_copy(update={"id": "again"}))
        assert again.text == answers.result()[0].text
    finally:
        await backend.close()


async def test_an_idle_model_keeps_the_prompts_used_last(chat_folder: Path) -> None:
    kept = 4 * 16 * 46_080
    backend = OnnxBackend([chat_folder], OnnxSettings(idle_after_s=0.2, idle_prefix_bytes=kept))
    await backend.start()
    try:
        prompt = complete("word " * 200, max_tokens=2)
        first = await ask(backend, prompt)
        await eventually(lambda: backend.cache_bytes == kept)
        again = await ask(backend, prompt.model_copy(update={"id": "again"}))
        assert again.finish.usage.cached_tokens == 64
        assert again.text == first.text
    finally:
        await backend.close()
