"""The imported all-MiniLM-L6-v2 gives sentence-transformers' vectors."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
from numpy.typing import NDArray

from actors.models.errors import CorruptModel, UnsupportedModel
from actors.models.folder import model_lock
from actors.models.sentence_encoder import BertConfig, import_sentence_encoder, read_safetensors
from actors.models.tokenizer import Tokenizer

Floats = NDArray[np.float32]


class Encoder:
    """A session on the model folder that pads its batch."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.load(folder)
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
        )

    def vectors(self, texts: list[str]) -> Floats:
        rows = [self.tokenizer.encode_sentence(text) for text in texts]
        width = max(map(len, rows))
        ids = np.array([row + [0] * (width - len(row)) for row in rows], np.int64)
        mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], np.int64)
        vectors: Floats = self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return vectors


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> Encoder:
    return Encoder(minilm)


def test_similarities_are_those_that_sentence_transformers_publishes(encoder: Encoder) -> None:
    # https://sbert.net, quickstart, model.similarity of all-MiniLM-L6-v2.
    vectors = encoder.vectors(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    )
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=6e-5)


def test_vectors_have_length_one_and_do_not_depend_on_padding(encoder: Encoder) -> None:
    texts = ["a", "two words", "a much longer sentence, with many more words than the others have " * 4]
    together = encoder.vectors(texts)
    assert together.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(encoder.vectors([text])[0], vector, atol=1e-5)


def test_a_question_is_closest_to_its_answer(encoder: Encoder) -> None:
    texts = [
        "How do I reset my password?",
        "Click on 'forgot password' and follow the link in the mail.",
        "Our offices are closed on public holidays.",
        "The train to Lyon leaves from platform four.",
    ]
    vectors = encoder.vectors(texts)
    assert (vectors[1:] @ vectors[0]).argmax() == 0


def test_a_damaged_weights_file_is_named(tmp_path: Path) -> None:
    for content in (b"", b"\xff" * 64, (2).to_bytes(8, "little") + b"{]", (99).to_bytes(8, "little") + b"{}"):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(CorruptModel, match="safetensors"):
            read_safetensors(tmp_path / "model.safetensors")


def test_tensors_that_are_missing_or_too_short_are_named(tmp_path: Path, minilm: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "bert", "hidden_act": "gelu", "hidden_size": 8, "num_hidden_layers": 1,'
        ' "num_attention_heads": 2, "max_position_embeddings": 4, "vocab_size": 9, "layer_norm_eps": 1e-12}'
    )
    shutil.copy(minilm / "tokenizer.json", tmp_path)
    for header, words in (
        (b"{}", "position_embeddings.weight' is missing"),
        (b'{"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}', "damaged or truncated"),
    ):
        (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        weights, tokenizer, config = (
            tmp_path / name for name in ("model.safetensors", "tokenizer.json", "config.json")
        )
        manifest = {"name": "x", "license": "", "source": "", "source_sha256": ""}
        with model_lock(tmp_path, "x"), pytest.raises(CorruptModel, match=words):
            import_sentence_encoder(
                weights, tokenizer, config, manifest, tmp_path / "x", lambda stage, done: None
            )
        assert not (tmp_path / "x").exists()


def test_another_kind_of_encoder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "roberta", "hidden_act": "gelu", "hidden_size": 8, "num_hidden_layers": 1,'
        ' "num_attention_heads": 2, "max_position_embeddings": 4, "vocab_size": 9, "layer_norm_eps": 1e-12}'
    )
    with pytest.raises(UnsupportedModel, match="roberta"):
        BertConfig.read(tmp_path / "config.json")
