from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actors.cli.main import root
from actors.models.manifest import MANIFEST, ModelManifest
from actors.triton import BadRepository
from actors.triton.config import check_repository, parse
from actors.triton.repository import write_repository
from actors.triton.repository_plan import ModelSpec, plan_parts
from orchestration.errors import InvalidRequest, OrchestraError
from tests.fixtures.models import minilm_folder, models_folder, smollm2_folder

EMBEDDING = "all-minilm-l6-v2"
CHAT = "smollm2-135m"


@pytest.fixture(scope="module", autouse=True)
def models() -> None:
    minilm_folder()
    smollm2_folder()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder whose models are the shared ones."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models").symlink_to(models_folder())
    return tmp_path / "data"


def say(data: Path, *words: str) -> Result:
    return CliRunner().invoke(root, ["triton", "repository", *words, "--data", str(data)])


def config(out: Path, name: str) -> str:
    return (out / name / "config.pbtxt").read_text(encoding="utf-8")


def test_an_embedding_model_is_written_as_an_ensemble_of_three_with_its_weights_linked(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = say(data, str(out), "--model", EMBEDDING)
    assert said.exit_code == 0, said.stderr
    assert said.stdout == f"ready: {out}\n"
    assert f"{EMBEDDING}-encoder: on cpu\n" in said.stderr
    steps = [f"{EMBEDDING}-encoder", f"{EMBEDDING}-pooling", f"{EMBEDDING}-tokenizer"]
    assert check_repository(out) == [EMBEDDING, *steps]
    ensemble = parse(config(out, EMBEDDING), EMBEDDING)
    assert sorted(step.model_name for step in ensemble.ensemble_scheduling.step) == steps
    link = out / steps[0] / "1" / "weights"
    assert link.is_symlink()
    assert link.resolve() == minilm_folder().resolve()
    encoder = parse(config(out, steps[0]), steps[0])
    assert encoder.parameters["folder"].string_value == str(link)
    size = sum(
        path.stat().st_size for path in out.rglob("*") if path.is_file() and "weights" not in path.parts
    )
    assert size < 100_000, "the weights were copied"
    assert not list(out.glob(".*")), "something of the writing was left"


def test_a_chat_model_is_written_whole_with_its_runtime_or_as_a_driver_over_stages_in_a_row(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert say(data, str(out), "--model", CHAT, "--runtime", "onnxruntime").exit_code == 0
    whole = parse(config(out, CHAT), CHAT)
    assert whole.model_transaction_policy.decoupled
    assert whole.parameters["runtime"].string_value == "onnxruntime"
    assert Path(whole.parameters["folder"].string_value).resolve() == smollm2_folder().resolve()

    cut = say(data, str(out), "--model", CHAT, "--partitions", "4", "--force")
    assert f"{CHAT}-stage-1: layers 8 to 15 on cpu\n" in cut.stderr
    stages = [f"{CHAT}-stage-{stage}" for stage in range(4)]
    assert check_repository(out) == [CHAT, f"{CHAT}-pipeline", *stages]
    steps = parse(config(out, f"{CHAT}-pipeline"), CHAT).ensemble_scheduling.step
    assert [step.model_name for step in steps] == stages
    for before, after in pairwise(steps):
        assert before.output_map["hidden"] == after.input_map["hidden"]
    given = {tensor.name for tensor in parse(config(out, stages[-1]), CHAT).output}
    assert given == {"logits"}


def test_a_model_on_a_gpu_says_so_in_its_instance_group(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert say(data, str(out), "--model", EMBEDDING, "--device", "cuda:1").exit_code == 0
    (group,) = parse(config(out, f"{EMBEDDING}-encoder"), "encoder").instance_group
    assert (group.Kind.Name(group.kind), list(group.gpus)) == ("KIND_GPU", [1])


def test_a_folder_with_something_in_it_is_left_alone_until_force_is_said(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "theirs").mkdir(parents=True)
    (out / "theirs" / "config.pbtxt").write_text('backend: "python"')
    refused = say(data, str(out), "--model", EMBEDDING)
    assert refused.exit_code == 2
    assert "is not empty; --force" in refused.stderr
    assert [path.name for path in out.iterdir()] == ["theirs"]
    stale = out / f"{EMBEDDING}-stage-7"
    shutil.copytree(out / "theirs", stale)
    for _ in range(2):
        assert say(data, str(out), "--model", EMBEDDING, "--force").exit_code == 0
    assert "theirs" in check_repository(out)
    assert not stale.exists(), "a part of an earlier cut was left"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--model", "nobody"), 2, "no model 'nobody'; known models: all-minilm-l6-v2, smollm2-135m"),
        (("--model", CHAT, "--partitions", "31"), 2, "30 layers cannot be split into 31 partitions"),
        (("--model", CHAT, "--partitions", "0"), 2, "partitions must be at least 1, not 0"),
        (
            ("--model", EMBEDDING, "--partitions", "2"),
            2,
            "is an embedding model, which cannot be partitioned",
        ),
        (("--model", CHAT, "--device", "cuda:0,cuda:1"), 2, "2 devices (cuda:0,cuda:1) do not fit 1 part"),
        (
            ("--model", CHAT, "--partitions", "3", "--device", "cuda:0,cuda:1"),
            2,
            "2 devices (cuda:0,cuda:1) do not fit 3 parts",
        ),
        (("--model", CHAT, "--device", "gpu"), 2, "'gpu' is not a device"),
        (("--model", CHAT, "--partitions", "2", "--runtime", "onnxruntime"), 2, "only torch runs a part"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is(
    data: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    out = tmp_path / "out"
    result = say(data, str(out), *words)
    assert result.exit_code == code
    assert said in result.stderr
    assert not out.exists()


def test_a_model_that_is_known_but_not_installed_is_told_with_the_way_out(tmp_path: Path) -> None:
    result = say(tmp_path / "empty", str(tmp_path / "out"), "--model", CHAT)
    assert result.exit_code == 2
    assert f"is not installed in {tmp_path}/empty/models: orchestra models pull {CHAT}" in result.stderr


def test_a_file_in_the_place_of_a_repository_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(BadRepository, match="is a file"):
        write_repository(tmp_path / "out", data / "models", [EMBEDDING], ModelSpec())


def test_a_place_whose_name_triton_cannot_quote_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRepository, match="apostrophe"):
        write_repository(tmp_path / "ada's", data / "models", [EMBEDDING], ModelSpec())


def test_stages_share_the_layers_and_each_has_the_device_of_its_turn() -> None:
    manifest = ModelManifest.read(smollm2_folder())
    found = plan_parts(manifest, ModelSpec(partitions=3, device="cuda:0,cuda:1,cpu"))
    assert [part.name for part in found] == [
        CHAT,
        f"{CHAT}-pipeline",
        *(f"{CHAT}-stage-{stage}" for stage in range(3)),
    ]
    stages = [part.values for part in found[2:]]
    assert [(each["first"], each["last"]) for each in stages] == [("0", "10"), ("10", "20"), ("20", "30")]
    assert [each["device"] for each in stages] == [
        "kind: KIND_GPU gpus: [ 0 ]",
        "kind: KIND_GPU gpus: [ 1 ]",
        "kind: KIND_CPU",
    ]
    assert '"tokens"' in stages[0]["input"]
    assert '"logits"' in stages[2]["output"]


def test_a_damaged_model_is_not_written(tmp_path: Path) -> None:
    broken = tmp_path / "models" / EMBEDDING
    shutil.copytree(minilm_folder(), broken, ignore=shutil.ignore_patterns("*.data"))
    assert (broken / MANIFEST).exists()
    with pytest.raises(OrchestraError, match=r"model\.onnx\.data is missing") as caught:
        write_repository(tmp_path / "out", tmp_path / "models", [EMBEDDING], ModelSpec())
    assert not isinstance(caught.value, InvalidRequest)
