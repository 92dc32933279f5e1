from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.engine.kv import KvCache, KvShape
from actors.engine.sessions.onnx import OnnxSession, load_session
from actors.engine.settings import OnnxSettings
from actors.models.manifest import ModelManifest
from orchestration.errors import BackendFailed
from tests.actors.engine.onnx.asking import PROMISED

ROWS = 9


@pytest.fixture(scope="module")
def kv(chat_folder: Path) -> KvCache:
    manifest = ModelManifest.read(chat_folder)
    shape = KvShape(layers=manifest.layers, kv_heads=manifest.kv_heads, head_dim=manifest.head_dim)
    return KvCache(shape, rows=ROWS, length=512)


@pytest.fixture(scope="module")
def session(chat_folder: Path, kv: KvCache) -> OnnxSession:
    return OnnxSession(chat_folder, ModelManifest.read(chat_folder), OnnxSettings(prefill_chunk=128), kv)


def prompt(seed: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(20, 40000, length)


def read(session: OnnxSession, row: int, tokens: NDArray[np.int64], chunk: int) -> NDArray[np.float32]:
    logits = np.empty(0, np.float32)
    for at in range(0, len(tokens), chunk):
        logits = session.prefill(row, tokens[at : at + chunk], at).copy()
    return logits


@pytest.mark.parametrize("chunk", [1, 3, 16, 33, 64, 128])
def test_a_prompt_gives_the_same_logits_however_it_is_cut(
    session: OnnxSession, kv: KvCache, chunk: int
) -> None:
    tokens = prompt(1, 97)  # 97 leaves one token over for chunks of 3 and 16
    wanted = read(session, 0, tokens, 97)
    keys = kv.array[:, 0, :, :97].copy()
    assert np.abs(read(session, 1, tokens, chunk) - wanted).max() < PROMISED
    assert np.abs(kv.array[:, 1, :, :97] - keys).max() < PROMISED


def test_a_row_gives_the_same_logits_whoever_shares_the_batch(session: OnnxSession) -> None:
    lengths = np.array([40 + 7 * row for row in range(ROWS - 1)], np.int32)
    for row, length in enumerate(lengths):
        read(session, row, prompt(row, int(length)), 64)
    tokens = np.arange(100, 100 + len(lengths))
    alone = session.decode(tokens[:1], lengths[:1])[0].copy()
    for count in range(2, ROWS):
        shared = session.decode(tokens[:count], lengths[:count])
        assert np.abs(shared[0] - alone).max() < PROMISED, f"{count} rows"


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_several_tokens_in_a_call_give_the_logits_of_one_by_one(session: OnnxSession, count: int) -> None:
    tokens = prompt(3, 60 + count)
    read(session, 1, tokens[:60], 60)
    together = session.verify(1, tokens[60:], 60).copy()
    assert len(together) == count
    for at in range(count):
        assert np.abs(session.prefill(1, tokens[60 + at : 61 + at], 60 + at) - together[at]).max() < PROMISED


def test_a_row_gives_the_same_logits_in_whatever_place_it_sits(session: OnnxSession, kv: KvCache) -> None:
    lengths = np.array([50, 60, 70], np.int32)
    for row, length in enumerate(lengths):
        read(session, row, prompt(row, int(length)), 64)
    tokens = np.array([200, 300, 400])
    wanted = session.decode(tokens, lengths)[2].copy()
    kv.move(2, 0, 70)
    assert np.abs(session.decode(tokens[2:], lengths[2:])[0] - wanted).max() < PROMISED


def test_a_graph_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"this is no graph")
    with pytest.raises(BackendFailed, match=r"cannot load model .*model\.onnx"):
        load_session(tmp_path, OnnxSettings())


def test_an_execution_provider_that_is_not_there_is_named_with_those_that_are(chat_folder: Path) -> None:
    settings = OnnxSettings(providers=("NoSuchExecutionProvider",))
    with pytest.raises(BackendFailed, match=r"NoSuchExecutionProvider.*CPUExecutionProvider"):
        load_session(chat_folder, settings)
