"""What people install: a wheel, in an environment that has nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_holds_code_types_and_data_and_nothing_named_nats_at_its_root(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "actors/py.typed",
        "orchestration/py.typed",
        "actors/data/nats/streams.yaml",
        "actors/data/nats/server.conf",
        "actors/data/triton_models/README.md",
        "actors/data/triton_models/templates/vllm/config.pbtxt",
        "actors/data/triton_models/templates/vllm/1/model.json",
        "orchestration/roles.yaml",
        "actors/models/catalogue.toml",
    } <= set(names)
    roots = {name.split("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"actors", "orchestration"}


@pytest.mark.timeout(400)
def test_a_wheel_in_an_empty_environment_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    empty = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")]
    subprocess.run(empty, check=True, timeout=120)
    python = tmp_path / "env/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
    install = [*pip, "install", "--no-compile", str(wheel)]  # most modules are never imported here
    subprocess.run(install, check=True, timeout=380)
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRA_", "PYTHON"))
    }

    def orchestra(*words: str) -> str:
        command = [str(tmp_path / "env/bin/orchestra"), *words]
        done = subprocess.run(command, cwd=outside, env=clean, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "orchestra up" in orchestra("--help")
    settings = orchestra("config", "--data", str(outside / "data"))
    assert "gateway.http" in settings
    assert "127.0.0.1:8080" in settings
    find = (
        "from actors.bus.declarations import shipped_declaration; "
        "from orchestration.roles import load_roles; "
        "from actors.installation.data_files import data_folder; "
        "assert (data_folder('triton_models') / 'llm').is_dir(); "
        "from orchestration.query_analysis.analysis import analyse; "
        "assert analyse('hello').kind == 'conversation'; "
        "print(shipped_declaration().stream('RUNS').name, sorted(load_roles({})))"
    )
    found = subprocess.run(
        [str(python), "-c", find], cwd=outside, env=clean, capture_output=True, text=True, timeout=60
    )
    assert found.stdout.split()[0] == "RUNS", found.stderr
    node = [
        str(tmp_path / "env/bin/orchestra"),
        "node",
        "--backend",
        "triton",
        "--data",
        str(outside / "data"),
    ]
    extra = subprocess.run(node, cwd=outside, env=clean, capture_output=True, text=True, timeout=60)
    assert (extra.returncode, "pip install 'orchestra-llm[triton]'" in extra.stderr) == (5, True), (
        extra.stderr
    )
    missing = (
        "import importlib.util as u; print(*map(u.find_spec, ('torch', 'pytest', 'onnx', 'onnxruntime')))"
    )
    light = subprocess.run(
        [str(python), "-c", missing], env=clean, capture_output=True, text=True, timeout=60
    )
    assert light.stdout.split() == ["None"] * 4
