"""Reading GGUF files that are damaged, truncated or no GGUF at all: always a clear word, never a crash."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from actors.models.errors import CorruptModel, ModelError, UnsupportedModel
from actors.models.gguf_file import GgufFile
from actors.models.gguf_import import import_gguf
from tests.actors.models.tiny_gguf import Tiny, write


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", Tiny(layers=1)).read_bytes()


def test_metadata_and_tensors_are_those_that_the_gguf_package_reads(smollm2_gguf: Path) -> None:
    reader = GGUFReader(smollm2_gguf)
    with GgufFile(smollm2_gguf) as file:
        assert len(file.tensors) == len(reader.tensors) == 272
        for tensor in reader.tensors:
            ours = file.tensors[tensor.name]
            assert ours.type == tensor.tensor_type
            assert list(ours.shape[::-1]) == tensor.shape.tolist()
            assert np.array_equal(ours.data, tensor.data.view(np.uint8).reshape(ours.data.shape))
        for key in ("llama.block_count", "tokenizer.chat_template", "llama.rope.freq_base"):
            field = reader.get_field(key)
            assert field is not None
            assert file.metadata[key] == field.contents()
        assert file.metadata["tokenizer.ggml.tokens"][:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [
        (b"", CorruptModel, "only 0 bytes"),
        (b"PK\x03\x04" + bytes(100), CorruptModel, "not a GGUF file: it starts with b'PK"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), UnsupportedModel, "GGUF version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), CorruptModel, "truncated"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), CorruptModel, "truncated"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**50) + bytes(99), CorruptModel, "truncated"),
    ],
)
def test_what_is_no_gguf_is_said_to_be_none(
    tmp_path: Path, start: bytes, error: type[ModelError], words: str
) -> None:
    (tmp_path / "x.gguf").write_bytes(start)
    with pytest.raises(error, match=words):
        GgufFile(tmp_path / "x.gguf")


def test_a_file_cut_off_anywhere_is_truncated(tmp_path: Path, sound: bytes) -> None:
    file = tmp_path / "cut.gguf"
    for length in [*range(0, 6000, 97), *range(6000, len(sound), len(sound) // 40), len(sound) - 1]:
        file.write_bytes(sound[:length])
        with pytest.raises(CorruptModel, match=r"truncated|not a GGUF"):
            GgufFile(file)


def test_damage_in_the_header_is_never_more_than_a_model_error(tmp_path: Path, sound: bytes) -> None:
    random = np.random.default_rng(0)
    file = tmp_path / "damaged.gguf"
    refused = 0
    for _ in range(300):
        damaged = bytearray(sound)
        for place in random.integers(4, 7000, 4):
            damaged[place] = random.integers(0, 256)
        file.write_bytes(damaged)
        try:
            GgufFile(file).close()
        except ModelError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("drop", [b"llama.block_count", b"blk.0.ffn_up.weight", b"tokenizer.ggml.merges"])
def test_a_missing_part_is_named(tmp_path: Path, sound: bytes, drop: bytes) -> None:
    assert sound.count(drop) == 1
    (tmp_path / "x.gguf").write_bytes(sound.replace(drop, drop[:-1] + b"?"))
    with pytest.raises(ModelError) as caught:
        import_gguf(tmp_path / "x.gguf", "x", tmp_path / "x")
    said = caught.value.message
    assert drop.decode() in said or "block_coun?" in said
    assert not (tmp_path / "x").exists()
