"""GGUF models in the parts that a split tool makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from actors.models.errors import CorruptModel, UnsupportedModel
from actors.models.folder import sha256
from actors.models.gguf_import import import_gguf
from actors.models.source import all_parts, model_name, parse
from tests.actors.models.tiny_gguf import Tiny, write

NAMES = [f"tiny-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model in three parts."""
    folder = tmp_path_factory.mktemp("parts")
    write(folder / "tiny.gguf", Tiny(layers=1, part_tensors=4))
    assert sorted(file.name for file in folder.iterdir()) == NAMES
    return folder


@pytest.mark.parametrize("given", NAMES)
def test_a_split_model_is_imported_whole_from_any_of_its_parts(
    parts: Path, tmp_path: Path, given: str
) -> None:
    whole = write(tmp_path / "whole.gguf", Tiny(layers=1))
    expected = import_gguf(whole, "m", tmp_path / "expected")
    made = import_gguf(parts / given, "m", tmp_path / "made")
    assert made.files == expected.files
    assert made.source_sha256 == sha256(*(parts / name for name in NAMES))


def test_a_part_alone_names_the_missing_ones_and_the_way_out(parts: Path, tmp_path: Path) -> None:
    shutil.copy(parts / NAMES[1], tmp_path)
    with pytest.raises(UnsupportedModel) as caught:
        import_gguf(tmp_path / NAMES[1], "m", tmp_path / "m")
    for words in ("part 2 of 3", "llama-gguf-split --merge", NAMES[0], NAMES[2]):
        assert words in caught.value.message
    shutil.move(tmp_path / NAMES[1], tmp_path / "renamed.gguf")
    with pytest.raises(UnsupportedModel, match=r"part 2 of 3: merge .* NAME-00002-of-00003\.gguf"):
        import_gguf(tmp_path / "renamed.gguf", "m", tmp_path / "m")


def test_a_part_in_the_place_of_another_is_named(parts: Path, tmp_path: Path) -> None:
    for source, place in zip((0, 1, 1), NAMES, strict=True):
        shutil.copy(parts / NAMES[source], tmp_path / place)
    with pytest.raises(CorruptModel, match=f"{NAMES[2]} is not part 3 of 3"):
        import_gguf(tmp_path / NAMES[0], "m", tmp_path / "m")


def test_a_source_of_one_part_means_them_all() -> None:
    source = parse(f"hf:owner/repo/sub/{NAMES[1]}@v1")
    assert [str(each) for each in all_parts(source)] == [f"hf:owner/repo/sub/{name}@v1" for name in NAMES]
    assert model_name(source.file_name) == "tiny"
    whole = parse("hf:owner/repo/tiny.gguf")
    assert (all_parts(whole), model_name(whole.file_name)) == ([whole], "tiny")
