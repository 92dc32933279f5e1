"""The imported graph computes what the file says: against plain numpy, for every tensor type and shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Type

from actors.models.errors import CorruptModel, ModelError, UnsupportedModel
from actors.models.gguf_import import import_gguf
from tests.actors.models.llama_reference import LlamaReference
from tests.actors.models.onnx_llama import Floats, OnnxLlama
from tests.actors.models.tiny_gguf import Tiny, write

IDS = [1, 40, 77, 90, 120, 200, 3, 65, 66, 67, 2, 258, 259, 100, 101, 40, 30]

TYPES = [
    Type.F32,
    Type.F16,
    Type.BF16,
    Type.Q4_0,
    Type.Q4_1,
    Type.Q5_0,
    Type.Q5_1,
    Type.Q8_0,
    Type.Q4_K,
    Type.Q5_K,
    Type.Q6_K,
]
FLOATS = TYPES[:3]
ROUNDED = 3e-4
"""Error of the logits, as a part of their spread, where a product takes an activation in two 8-bit parts."""


def _imported(tmp_path: Path, tiny: Tiny) -> tuple[Path, LlamaReference]:
    file = write(tmp_path / "tiny.gguf", tiny)
    folder = tmp_path / "models" / "tiny"
    import_gguf(file, "tiny", folder)
    return folder, LlamaReference(file)


def _error(actual: Floats, expected: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(np.sqrt(((actual - expected) ** 2).mean()) / expected.std())


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_every_tensor_type_gives_the_logits_of_plain_numpy(tmp_path: Path, kind: Type, tied: bool) -> None:
    folder, reference = _imported(tmp_path, Tiny(type=kind, tied=tied))
    expected = reference.logits(IDS)
    # 8-bit activations, as llama.cpp has them, make 0.01 to 0.03 of it.
    assert _error(OnnxLlama(folder).logits(IDS), expected) < (2e-5 if kind in FLOATS else ROUNDED)


@pytest.mark.parametrize(
    "tiny",
    [
        Tiny(kv_heads=4),
        Tiny(kv_heads=1),
        Tiny(rope_freqs=True),
        Tiny(metadata={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}),
        Tiny(layers=1, type=Type.Q4_1),
        Tiny(type=Type.Q4_K, types={"attn_v": Type.Q6_K, "ffn_down": Type.Q6_K, "token_embd": Type.Q6_K}),
        Tiny(type=Type.Q4_1, types={"token_embd": Type.Q4_1, "output": Type.Q8_0}, tied=False),
    ],
    ids=["mha", "mqa", "rope_freqs", "linear_rope", "one_layer", "q4_k_m_mixture", "mixed_untied"],
)
def test_every_shape_of_llama_gives_the_logits_of_plain_numpy(tmp_path: Path, tiny: Tiny) -> None:
    folder, reference = _imported(tmp_path, tiny)
    assert _error(OnnxLlama(folder).logits(IDS), reference.logits(IDS)) < ROUNDED


def test_a_prompt_read_in_pieces_gives_the_logits_of_the_whole(tmp_path: Path) -> None:
    folder, reference = _imported(tmp_path, Tiny())
    llama = OnnxLlama(folder)
    cache, got = llama.empty(), []
    for start, end in ((0, 5), (5, 12), (12, len(IDS))):
        row = np.array([IDS[start:end]], np.int64)
        logits, cache = llama.step(row, [end], cache, list(range(end - start)))
        got.append(logits)
    assert _error(np.concatenate(got), reference.logits(IDS)) < 2e-5


def test_rows_of_different_lengths_decode_together(tmp_path: Path) -> None:
    folder, reference = _imported(tmp_path, Tiny())
    llama = OnnxLlama(folder)
    lengths = [5, 11, 8]
    width = max(lengths)
    prompts = np.array([IDS[:length] + [0] * (width - length) for length in lengths], np.int64)
    last = [row * width + length - 1 for row, length in enumerate(lengths)]
    first, cache = llama.step(prompts, lengths, llama.empty(3), last)
    room = [np.pad(part, ((0, 0), (0, 0), (0, 4), (0, 0))) for part in cache]
    following = np.array([[IDS[length]] for length in lengths], np.int64)
    second, _ = llama.step(following, [length + 1 for length in lengths], room, [0, 1, 2])
    for row, length in enumerate(lengths):
        expected = reference.logits(IDS[: length + 1])
        assert _error(first[row], expected[-2]) < 2e-5
        assert _error(second[row], expected[-1]) < 2e-5


def test_logits_are_given_for_the_positions_asked_for_only(tmp_path: Path) -> None:
    folder, _ = _imported(tmp_path, Tiny())
    llama = OnnxLlama(folder)
    row = np.array([IDS], np.int64)
    picked, _ = llama.step(row, [len(IDS)], llama.empty(), [3, 3, 9])
    none, cache = llama.step(row, [len(IDS)], llama.empty(), [])
    assert picked.shape[0] == 3
    np.testing.assert_array_equal(picked[0], picked[1])
    assert none.shape[0] == 0
    assert cache[0].shape[2] == len(IDS)


@pytest.mark.parametrize(
    ("tiny", "error", "words"),
    [
        (Tiny(architecture="mamba"), UnsupportedModel, "architecture 'mamba'"),
        (Tiny(extra=("blk.0.attn_q.bias",)), UnsupportedModel, "blk.0.attn_q.bias"),
        (
            Tiny(metadata={"llama.attention.sliding_window": 64}),
            UnsupportedModel,
            "attention.sliding_window",
        ),
        (Tiny(metadata={"llama.expert_count": 8}), UnsupportedModel, "expert_count"),
        (Tiny(metadata={"llama.rope.scaling.type": "yarn"}), UnsupportedModel, "yarn"),
        (Tiny(metadata={"llama.rope.dimension_count": 32}), UnsupportedModel, "rope.dimension_count"),
        (Tiny(pre="klingon"), UnsupportedModel, "klingon"),
    ],
    ids=["architecture", "bias", "sliding_window", "experts", "yarn", "partial_rotary", "pre_tokenizer"],
)
def test_what_cannot_be_run_is_refused_by_name(
    tmp_path: Path, tiny: Tiny, error: type[ModelError], words: str
) -> None:
    file = write(tmp_path / "tiny.gguf", tiny)
    with pytest.raises(error) as caught:
        import_gguf(file, "tiny", tmp_path / "models" / "tiny")
    assert words in caught.value.message
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".tiny.lock"]


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptModel, match="there is no file"):
        import_gguf(tmp_path / "none.gguf", "none", tmp_path / "models" / "none")
