from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.installation.data_files import data_folder
from actors.triton import BadRepository
from actors.triton.config import check_repository, parse

BY_HAND = sorted(path.name for path in (data_folder("triton_models") / "templates").iterdir())


@pytest.mark.parametrize("name", BY_HAND)
def test_a_template_that_cannot_run_here_keeps_to_the_published_schema_and_says_so(name: str) -> None:
    folder = data_folder("triton_models") / "templates" / name
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    assert text.startswith("# NOT RUN HERE")
    config = parse(text, name)
    assert config.backend == name
    assert config.input
    assert config.output
    for extra in folder.glob("1/*.json"):
        assert json.loads(extra.read_text())["model"]


def test_the_templates_by_hand_are_those_the_readme_lists() -> None:
    readme = (data_folder("triton_models") / "README.md").read_text(encoding="utf-8")
    assert BY_HAND == ["onnxruntime", "vllm"]
    assert all(f"`templates/{name}/`" in readme for name in BY_HAND)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('max_batch_size: "8"', r"line 1:17 : .*"),
        ("dims: [ 1 ]", r"line 1:1 : .*dims"),
        ("input [ { name: 'a' data_type: TYPE_TEXT } ]", r"TYPE_TEXT"),
    ],
)
def test_a_wrong_type_or_field_of_a_configuration_is_found_with_its_line(text: str, said: str) -> None:
    with pytest.raises(BadRepository, match=rf"mine/config.pbtxt is not a valid configuration.*{said}"):
        parse(text, "mine/config.pbtxt")


def test_a_repository_is_checked_model_by_model(tmp_path: Path) -> None:
    with pytest.raises(BadRepository, match="holds no model"):
        check_repository(tmp_path)
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "config.pbtxt").write_text('backend: "python"')
    (tmp_path / "completed-by-triton").mkdir()
    (tmp_path / "README.md").touch()
    assert check_repository(tmp_path) == ["completed-by-triton", "good"]
    (tmp_path / "good" / "config.pbtxt").write_text('name: "other"')
    with pytest.raises(BadRepository, match=r"has the name 'other', but its folder is 'good'"):
        check_repository(tmp_path)
    with pytest.raises(BadRepository, match=r"no model repository .*orchestra triton repository"):
        check_repository(tmp_path / "nowhere")
