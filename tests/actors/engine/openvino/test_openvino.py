"""Llamas in OpenVINO compute what the file says, and give their memory back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Type

from actors.engine.settings import OpenVinoSettings
from actors.models.gguf_import import import_gguf
from actors.models.manifest import ModelManifest
from tests.actors.engine.onnx.asking import PROMISED, ask, complete
from tests.actors.models.llama_reference import LlamaReference, relative_error
from tests.actors.models.tiny_gguf import SHAPES, Tiny, write
from tests.fixtures.eventually import eventually

IDS = np.array([1, 40, 77, 90, 120, 200, 3, 65, 66, 67, 2, 258, 259, 100, 101, 40, 30], np.int64)
LONG = np.random.default_rng(1).integers(20, 40000, 97)


def opened(folder: Path, **settings: Any) -> Any:
    """The session of a model with a small cache."""
    from actors.engine.openvino_backend import OpenVinoRuntime

    chosen = OpenVinoSettings(kv_cache_bytes=64 << 20, prefix_cache_bytes=0, **settings)
    manifest = ModelManifest.read(folder)
    return OpenVinoRuntime(chosen).open(folder, manifest, chosen, rows=9, length=256).session


@pytest.mark.parametrize("tiny", SHAPES.values(), ids=SHAPES)
def test_every_shape_of_llama_gives_the_logits_of_plain_numpy(tmp_path: Path, tiny: Tiny) -> None:
    file = write(tmp_path / "tiny.gguf", tiny)
    folder = tmp_path / "models" / "tiny"
    import_gguf(file, "tiny", folder)
    expected = LlamaReference(file).logits(IDS.tolist())
    session = opened(folder)
    assert relative_error(session.prefill(2, IDS[:9], 0), expected[8]) < 2e-5
    assert relative_error(session.prefill(2, IDS[9:10], 9), expected[9]) < 2e-5
    for row, count in enumerate((5, 11, 8)):
        session.prefill(row, IDS[:count], 0)
    lengths = np.array([5, 11, 8], np.int32)
    together = session.decode(IDS[lengths], lengths)
    for row, length in enumerate(lengths):
        assert relative_error(together[row], expected[length]) < 2e-5


@pytest.mark.parametrize("kind", [Type.Q4_1, Type.Q8_0, Type.Q4_K])
def test_rounded_activations_move_logits_by_a_few_percent(tmp_path: Path, kind: Type) -> None:
    file = write(tmp_path / "tiny.gguf", Tiny(type=kind))
    import_gguf(file, "tiny", tmp_path / "models" / "tiny")
    expected = LlamaReference(file).logits(IDS.tolist())
    session = opened(tmp_path / "models" / "tiny", activations="int8")
    assert relative_error(session.prefill(0, IDS[:9], 0), expected[8]) < 0.05


@pytest.fixture(scope="module")
def session(chat_folder: Path) -> Any:
    return opened(chat_folder)


@pytest.mark.parametrize("chunk", [1, 3, 32, 33, 64])
def test_a_prompt_gives_the_same_logits_however_it_is_cut(session: Any, chunk: int) -> None:
    wanted = session.prefill(0, LONG, 0).copy()
    logits = wanted
    for at in range(0, len(LONG), chunk):
        logits = session.prefill(1, LONG[at : at + chunk], at)
    assert np.abs(logits - wanted).max() < PROMISED


def test_a_row_gives_the_same_logits_whoever_shares_the_batch(session: Any) -> None:
    lengths = np.array([40 + 7 * row for row in range(8)], np.int32)
    for row, length in enumerate(lengths):
        session.prefill(row, LONG[row : row + length], 0)
    tokens = np.arange(100, 108)
    alone = session.decode(tokens[:1], lengths[:1])[0].copy()
    for count in range(2, 9):
        shared = session.decode(tokens[:count], lengths[:count])
        assert np.abs(shared[0] - alone).max() < PROMISED, f"{count} rows"


def test_several_tokens_in_a_call_give_the_logits_of_one_by_one(session: Any) -> None:
    session.prefill(1, LONG[:60], 0)
    together = session.verify(1, LONG[60:64], 60).copy()
    for at, logits in enumerate(together, 60):
        assert np.abs(session.prefill(1, LONG[at : at + 1], at) - logits).max() < PROMISED


def test_rounded_activations_choose_nearly_the_same_tokens(chat_folder: Path, session: Any) -> None:
    rounded = opened(chat_folder, activations="int8")
    same = 0
    for end in range(20, 50):
        exact = session.prefill(0, LONG[:end], 0).argmax()
        same += int(rounded.prefill(0, LONG[:end], 0).argmax() == exact)
    assert same >= 24


async def test_memory_of_an_idle_model_comes_back(chat_folder: Path) -> None:
    from actors.engine.openvino_backend import OpenVinoBackend

    settings = OpenVinoSettings(idle_after_s=0.2, idle_prefix_bytes=0)
    backend = OpenVinoBackend([chat_folder], settings)
    await backend.start()
    try:
        answer = await ask(backend, complete("word " * 200, max_tokens=2))
        await eventually(lambda: backend.cache_bytes == 0)
        again = await ask(backend, complete("word " * 200, max_tokens=2))
        assert again.text == answer.text
        assert again.finish.usage.cached_tokens == 0
    finally:
        await backend.close()
