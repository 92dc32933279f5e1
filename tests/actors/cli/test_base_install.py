"""What runs without the extra `onnx`, and what says that it needs it: each command a process of its own."""

from __future__ import annotations

import json
import os
import re
import time
import tomllib
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fixtures.nats import RunningNats
from tests.fixtures.process import orchestra
from tests.fixtures.zero_upstream import zero_upstream

ROOT = Path(__file__).parents[3]
EMBEDDER = "all-minilm-l6-v2"
WAY_OUT = "pip install 'orchestra-llm[onnx]'"


@pytest.fixture
def base_install(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python in which none of the extra's packages can be imported."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distributions = [re.split(r"[<>=\[]", requirement)[0] for requirement in extras["onnx"]]
    modules = [name.replace("-", "_") for name in distributions if name != "pip"]
    assert "onnxruntime" in modules
    folder = tmp_path / "site"
    folder.mkdir()
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({modules}))\n"
    (folder / "sitecustomize.py").write_text(blocked)
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


def answer_of(url: str, model: str, *, within_s: float = 60) -> str:
    """The answer to one chat; asked again while the model is not there yet."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    until = time.monotonic() + within_s
    while True:
        request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=within_s) as reply:
                return str(json.load(reply)["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            if error.code not in (404, 503) or time.monotonic() > until:
                raise AssertionError(error.read()) from error


def test_a_base_install_runs_a_gateway_a_dispatcher_agents_and_an_openai_node(
    own_nats: RunningNats, tmp_path: Path, base_install: dict[str, str]
) -> None:
    def place(name: str) -> tuple[str, ...]:
        return ("--nats", own_nats.url, "--data", str(tmp_path / name))

    with ExitStack() as stack:
        upstream = stack.enter_context(zero_upstream(chunks=3))
        roles = [
            (("gateway", *place("gateway"), "--http", "127.0.0.1:0"), "gateway is at"),
            (("dispatcher", *place("dispatcher")), "dispatcher is ready"),
            (("agents", *place("agents")), "are ready"),
            (
                (
                    "node",
                    *place("node"),
                    "--backend",
                    "openai",
                    "--base-url",
                    upstream,
                    "--serve",
                    "far=zero",
                ),
                "serves far",
            ),
        ]
        environment = base_install | {"ORCHESTRA_AGENTS__EMBEDDER": EMBEDDER}
        processes = [
            stack.enter_context(orchestra(*words, cwd=tmp_path, before=(), **environment))
            for words, _ in roles
        ]
        for process, (_, line) in zip(processes, roles, strict=True):
            process.wait_for(line)
        gateway, agents = processes[0], processes[2]
        assert f"it needs onnxruntime ({WAY_OUT})" in agents.said
        (url,) = re.findall(r"http://\S+", gateway.said)[:1]
        assert answer_of(url, "far")
        assert answer_of(url, "orchestra/single")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("node", "--backend", "onnx", "--nats", "nats://127.0.0.1:1"), "the import of a model"),
        (("up", "--http", "127.0.0.1:0"), "the import of a model"),
        (("models", "pull", "smollm2-135m"), "the import of a model"),
        (("models", "import", __file__, "--name", "mine"), "the import of a model"),
    ],
)
def test_what_needs_the_extra_says_so_with_the_way_out(
    words: tuple[str, ...], what: str, tmp_path: Path, base_install: dict[str, str]
) -> None:
    with orchestra(
        *words, "--data", str(tmp_path / "data"), cwd=tmp_path, before=(), **base_install
    ) as process:
        assert process.wait() == 5
        while process._lines.get(timeout=30) is not None:
            pass
    (line,) = [line for line in process.said.splitlines() if WAY_OUT in line]
    assert re.search(rf"{what} needs \w+: ", line)
    assert not list((tmp_path / "data").rglob("*.gguf"))
